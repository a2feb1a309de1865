"""`proctor curate`: select training rows with traces, by a recipe."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID

from proctor.curation.errors import CurationError
from proctor.curation.recipe import default_recipe, load_recipe
from proctor.curation.run.manifest import write_manifest
from proctor.curation.run.measuring import measure_recipe
from proctor.curation.run.pipeline import Advance, Pipeline
from proctor.curation.run.report import print_report, sections, write_report

DEFAULT_OUT = Path("curated")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `proctor curate` to its parser."""
    commands = parser.add_subparsers(dest="curate_command", required=True)
    run = commands.add_parser("run", help="read, judge, choose and write rows; continues a run")
    run.add_argument("recipe", type=Path, help="the recipe, a TOML file")
    run.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the results")
    measure = commands.add_parser(
        "measure", help="ask the servers of the stage 'difficulty'; continues a measurement"
    )
    measure.add_argument("recipe", type=Path, help="the recipe, a TOML file")
    measure.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the results")
    measure.add_argument("--dry-run", action="store_true", help="only print the price")
    commands.add_parser("recipe", help="print the recipe to start from")


def execute(options: argparse.Namespace) -> int:
    """Run the selected command and return its exit status."""
    try:
        if options.curate_command == "recipe":
            print(default_recipe(), end="")
        elif options.curate_command == "measure":
            recipe, console = load_recipe(options.recipe), Console(stderr=True)
            measure_recipe(recipe, options.out, _progress, console, options.dry_run)
        else:
            _run(options.recipe, options.out)
    except KeyboardInterrupt:
        print("proctor: stopped; run again to continue with the same step", file=sys.stderr)
        return 130
    except (CurationError, OSError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    return 0


def _run(path: Path, out: Path) -> None:
    recipe = load_recipe(path)
    with _progress() as advance:
        result = Pipeline(recipe, out, advance).run()
    write_manifest(recipe, result, out)
    title = f"{result.chosen:,} rows by {path.name}"
    report = sections(recipe, result)
    write_report(title, report, out)
    print_report(title, report)
    print(f"\nwritten to {out}: rows.jsonl, dropped.jsonl, manifest.json, report.md, report.html")


@contextmanager
def _progress() -> Iterator[Advance]:
    """Show a bar for each step that runs."""
    bars: dict[str, TaskID] = {}
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def advance(name: str, total: int | None) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=total)
            progress.advance(bars[name])

        yield advance
