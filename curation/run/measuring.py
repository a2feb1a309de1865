"""`proctor curate measure`: asks servers what the stages `difficulty` of a recipe need to know."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console

from proctor.curation.difficulty.measure import measure
from proctor.curation.difficulty.options import DifficultyOptions
from proctor.curation.errors import CurationError
from proctor.curation.recipe import Recipe
from proctor.curation.run.pipeline import Advance, Pipeline
from proctor.evaluation.client import RequestRefused, TokenCountMismatch
from proctor.evaluation.store import StoreError


def measure_recipe(
    recipe: Recipe,
    out: Path,
    progress: Callable[[], AbstractContextManager[Advance]],
    console: Console,
    dry_run: bool = False,
) -> None:
    """Measure the rows that reach each stage `difficulty`: those that earlier stages keep.

    Args:
        recipe: the recipe.
        out: the folder of the results, in which `proctor curate run` finds the steps that ran.
        progress: shows the progress of these steps.
        console: shows the price and the progress of the answers.
        dry_run: only print the price.

    Raises:
        CurationError: if there is no such stage, a server does not answer or refuses most
            requests, or a step fails.
    """
    positions = [
        (position, options)
        for position, (_, options) in enumerate(recipe.stages)
        if isinstance(options, DifficultyOptions)
    ]
    if not positions:
        raise CurationError("the recipe has no stage 'difficulty', so there is nothing to measure")
    for position, options in positions:
        with progress() as advance:
            rows = Pipeline(recipe, out, advance).rows_before(position)
        try:
            asyncio.run(measure(options, rows, recipe.folder, console, dry_run))
        except (RequestRefused, StoreError, TokenCountMismatch) as error:
            raise CurationError(str(error)) from error
