"""The manifest: everything that a result depends on, and what each step did."""

from pathlib import Path
from typing import Any

from proctor.curation.recipe import Recipe
from proctor.curation.run.pipeline import Result
from proctor.curation.run.versions import versions
from proctor.curation.storage import digest_of_file, write_json


def manifest(recipe: Recipe, result: Result, out: Path) -> dict[str, Any]:
    """Return everything that the result depends on, and what each step did."""
    return {
        "recipe": recipe.to_json(),
        "files": result.files,
        "versions": versions(),
        "steps": [{"step": each.name, **each.counts()} for each in result.summaries],
        "chosen": result.chosen,
        "domains": result.domains,
        "trace_lengths": result.traces.to_json(),
        "row_lengths": result.rows and result.rows.to_json(),
        "outputs": {name: digest_of_file(out / name) for name in ("rows.jsonl", "dropped.jsonl")},
    }


def write_manifest(recipe: Recipe, result: Result, out: Path) -> None:
    """Write the manifest, `manifest.json`."""
    write_json(out / "manifest.json", manifest(recipe, result, out))
