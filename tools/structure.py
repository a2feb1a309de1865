"""Measure the structure of the code: `python -m tools.structure`.

Prints a Markdown table: lines of functions, files per folder, the longest chain of imports in one
package, how many of the project's modules a module imports, and the shares of comments and
docstrings. `docs/decisions/` quotes it.
"""

import ast
import io
import statistics
import tokenize
from collections import Counter
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("budget", "curation", "demo", "evaluation", "router", "server", "training")
README = ROOT / "README.md"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Print the table."""
    print("| | value |\n|---|--:|")
    for name, value in measure().items():
        print(f"| {name} | {value} |")


def measure() -> dict[str, str]:
    """Return each figure, formatted, by name."""
    files = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    functions = [function for path in files for function in _functions(path)]
    lines = sorted((function.end_lineno or 0) - function.lineno + 1 for function in functions)
    documented = sum(ast.get_docstring(function) is not None for function in functions)
    folders = Counter(path.parent for path in files)
    folder, file_count = folders.most_common(1)[0]
    chain = longest_chain()
    return {
        "function lines: median / p95 / max": (
            f"{statistics.median(lines):g} / {lines[int(0.95 * len(lines))]} / {lines[-1]}"
        ),
        "most files in one folder": f"{file_count} ({folder.relative_to(ROOT)})",
        "longest import chain": f"{len(chain)} ({chain[0]} to {chain[-1]})",
        "imports of own modules per module": f"{_imports_per_module():.1f}",
        "comments, % of lines": f"{_comment_share(files):.1f}",
        "functions with a docstring, %": f"{100 * documented / len(functions):.0f}",
        "README, words": f"{len(README.read_text(encoding='utf-8').split()):,}",
    }


@cache
def _graph() -> grimp.ImportGraph:
    first, *others = (f"proctor.{name}" for name in PACKAGES)
    return grimp.build_graph(first, *others)


def longest_chain() -> list[str]:
    """Return the longest chain of modules of one package, in which each imports the next."""
    graph = _graph()

    @cache
    def chain_from(module: str) -> tuple[str, ...]:
        package = ".".join(module.split(".")[:2])
        imported = graph.find_modules_directly_imported_by(module)
        inside = [each for each in sorted(imported) if each.startswith(f"{package}.")]
        chains = [chain_from(each) for each in inside]
        return (module, *max(chains, key=len)) if chains else (module,)

    longest = max(map(chain_from, sorted(graph.modules)), key=len)
    return list(longest)


def _imports_per_module() -> float:
    graph = _graph()
    counts = [len(graph.find_modules_directly_imported_by(module)) for module in graph.modules]
    return statistics.mean(count for count in counts if count)


def _functions(path: Path) -> list[Function]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def _comment_share(files: list[Path]) -> float:
    comments = total = 0
    for path in files:
        text = path.read_text(encoding="utf-8")
        total += len(text.splitlines())
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments += len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})
    return 100 * comments / total


if __name__ == "__main__":
    main()
