"""List every name of vLLM that Proctor uses, with its signature: `python -m tools.vllm_api`.

Proctor follows internal interfaces of vLLM. `tests/data/vllm_api.txt` is the list for the version
that is pinned; a test compares it with the installed version, so that a new version of vLLM shows
at once what it has renamed, moved or given other parameters.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "data" / "vllm_api.txt"
PACKAGES = ("budget", "server")


def main() -> None:
    """Write the list."""
    LIST.parent.mkdir(exist_ok=True)
    LIST.write_text("".join(f"{line}\n" for line in used_api()), encoding="utf-8")


def used_api() -> list[str]:
    """Return one line for each used name, in alphabetical order.

    A function or method has its parameters, with `=` where one has a default. A class has the
    parameters that Proctor passes by keyword, and a line for each attribute that a module which
    imports the class accesses, on whatever object. A module has a line for each of its attributes
    that is accessed.

    Raises:
        ImportError: if the installed vLLM lacks a module.
        AttributeError: if one of its modules lacks a name.
    """
    lines: set[str] = set()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for module, name in _imports(tree):
                lines |= set(_describe(module, name, tree))
    return sorted(lines)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, None) for each in node.names if _is_vllm(each.name))
        elif isinstance(node, ast.ImportFrom) and node.module and _is_vllm(node.module):
            yield from ((node.module, each.name) for each in node.names)


def _is_vllm(module: str) -> bool:
    return module.partition(".")[0] == "vllm"


def _describe(module: str, name: str | None, tree: ast.Module) -> Iterator[str]:
    imported = importlib.import_module(module)
    if name is None:
        yield module
        return
    path = f"{module}.{name}"
    value = getattr(imported, name) if hasattr(imported, name) else importlib.import_module(path)
    if isinstance(value, ModuleType):
        yield path
        for attribute in sorted(_accessed_of(tree, name)):
            yield f"{path}.{attribute}{_signature(getattr(value, attribute))}"
    elif inspect.isclass(value):
        keywords = sorted(_keywords(tree, name) & _parameters(value))
        yield f"{path}({', '.join(keywords)})" if keywords else path
        for attribute in sorted(_accessed(tree) & _attributes(value)):
            yield f"{path}.{attribute}{_signature(getattr(value, attribute, None))}"
    else:
        yield f"{path}{_signature(value)}"


def _keywords(tree: ast.Module, name: str) -> set[str]:
    """Return the keywords of all calls of a name."""
    return {
        keyword.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
        for keyword in node.keywords
        if keyword.arg is not None
    }


def _accessed(tree: ast.Module) -> set[str]:
    """Return the names of attributes that a module reads or writes, and of methods it defines."""
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return read | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _accessed_of(tree: ast.Module, name: str) -> set[str]:
    """Return the names of attributes that a module reads or writes of one name."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    }


def _attributes(value: type) -> set[str]:
    """Return the names of a class's own and inherited attributes, annotated fields included."""
    names = {name for name in dir(value) if not name.startswith("__")}
    for base in value.__mro__:
        names |= set(inspect.get_annotations(base))
    return names


def _parameters(value: type) -> set[str]:
    try:
        return set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return set()


def _signature(value: object) -> str:
    if not callable(value):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "()"
    return f"({', '.join(map(_format, parameters))})"


def _format(parameter: inspect.Parameter) -> str:
    """Return a parameter's name with its kind; of a default, only that there is one."""
    default = "" if parameter.default is inspect.Parameter.empty else "="
    match parameter.kind:
        case inspect.Parameter.VAR_POSITIONAL:
            return f"*{parameter.name}"
        case inspect.Parameter.VAR_KEYWORD:
            return f"**{parameter.name}"
        case _:
            return f"{parameter.name}{default}"


if __name__ == "__main__":
    main()
