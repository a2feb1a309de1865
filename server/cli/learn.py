"""The command `proctor router learn`: learns an outcome model from answers."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proctor.router import LEVELS, UnknownClassifier, load
from proctor.router.learning.answers import Answer, Answers
from proctor.router.learning.eval_files import read_eval
from proctor.router.learning.fitting import Recipe
from proctor.router.learning.learner import Learned, learn
from proctor.router.learning.report import to_markdown
from proctor.router.outcomes.policy import Objective
from proctor.router.outcomes.prior import Prior
from proctor.server.accounting.ledger.answers import read_answers
from proctor.server.accounting.ledger.service import open_store
from proctor.server.admission.model_updates import NOT_USED
from proctor.server.config.budgets import RouterSettings
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import load_settings
from proctor.server.storage.database import sqlite_file
from proctor.server.storage.errors import LedgerError
from proctor.server.storage.migrate import check_version

DEFAULT_OUT = Path("router.npz")

LOW_PRIORITY = 10
"""What is added to the niceness of a server's process that learns."""


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the arguments to a parser.

    Args:
        parser: the parser of the command.
        config: the help of `--config`.
    """
    parser.add_argument(
        "--ledger", metavar="URL", help="URL of the ledger (default: the setting ledger.url)"
    )
    parser.add_argument(
        "--eval",
        nargs=2,
        type=Path,
        action="append",
        default=[],
        metavar=("RUN", "QUESTIONS"),
        help="file of 'proctor eval run', and the file of its questions; may be repeated",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="output file, with the report beside it as .md (default: the setting router.model, or "
        f"{DEFAULT_OUT})",
    )
    parser.add_argument(
        "--force", action="store_true", help="write a model that should not be used, too"
    )
    parser.add_argument("--config", type=Path, help=config)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where answers come from.

    Attributes:
        ledger: the URL of the ledger; empty for none.
        evals: files of `proctor eval run`, each with the file of its questions.
    """

    ledger: str
    evals: Sequence[tuple[Path, Path]] = ()


def run(options: argparse.Namespace) -> int:
    """Learn a model, print the report, and return the exit status.

    Raises:
        ConfigError: if a setting is invalid, or there is nothing to learn for or from.
    """
    settings = load_settings({}, options.config)
    # Files that are named take the place of the configured ledger, not of one that is named too.
    configured = "" if options.eval else settings.ledger.url.get_secret_value()
    sources = Sources(options.ledger or configured, [(run, rows) for run, rows in options.eval])
    if not sources.ledger and not sources.evals:
        raise ConfigError("ledger.url: Must be set, or --ledger or --eval given")
    out = options.out or settings.router.model or DEFAULT_OUT
    return _learn(sources, settings.router, out, force=options.force)


def _learn(sources: Sources, settings: RouterSettings, out: Path, *, force: bool = False) -> int:
    try:
        learned = learn_from(sources, settings)
        save(learned, out, force=force)
    except ConfigError:
        raise
    except (LedgerError, OSError, ValueError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 2
    print(to_markdown(learned), end="")
    if learned.objections and not force:
        print(f"proctor: {out} was not written: {learned.objections[0]}", file=sys.stderr)
        return NOT_USED
    return 0


def learn_from(sources: Sources, settings: RouterSettings) -> Learned:
    """Learn a model for the tiers and the objective of the settings.

    Raises:
        ConfigError: if the settings name no objective, or no installed classifier.
        EvalFileError: if a file cannot be read.
        LedgerError: if there is no ledger, or its tables have another version.
        ValueError: if there are no answers.
    """
    if settings.objective == Objective():
        raise ConfigError(
            "router: Set error_cost, mean_thinking_tokens or min_accuracy, to say what to learn for"
        )
    try:
        classifier = load(settings.classifier)
    except UnknownClassifier as error:
        raise ConfigError(f"router.classifier: {error}") from error
    found = [answer for files in sources.evals for answer in read_eval(*files)]
    if sources.ledger:
        found += _ledger_answers(sources.ledger, settings.tiers)
    answers = Answers.of(found, settings.tiers, classifier)
    return learn(answers, to_recipe(settings), settings.objective)


def to_recipe(settings: RouterSettings) -> Recipe:
    """Return what the settings say about how to learn."""
    tiers = [settings.tiers.index(settings.levels.tier_of(level)) for level in LEVELS]
    return Recipe(tuple(tiers), Prior.of(settings.costs), settings.half_life_days)


def save(learned: Learned, out: Path, *, force: bool = False) -> None:
    """Write the report beside `out`, and the model to it unless it should not be used.

    Both are replaced as a whole, so that a server never reads a part.
    """
    _replace(out.with_suffix(".md"), lambda path: path.write_text(to_markdown(learned), "utf-8"))
    if force or not learned.objections:
        _replace(out, learned.model.save)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.part")
    write(partial)
    partial.replace(path)


def _ledger_answers(url: str, tiers: tuple[str, ...]) -> list[Answer]:
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise LedgerError(f"There is no ledger at {file}.")

    async def read() -> list[Answer]:
        store = open_store(url, reads_only=True)
        try:
            await check_version(store.engine)
            return await read_answers(store.engine, tiers)
        finally:
            await store.aclose()

    return asyncio.run(read())


def main() -> int:
    """Learn as a process of a server: read the URL of its ledger and its settings, as JSON."""
    os.nice(LOW_PRIORITY)
    job = json.load(sys.stdin)
    settings = RouterSettings.model_validate(job["router"])
    return _learn(Sources(job["ledger"]), settings, settings.model or DEFAULT_OUT)


if __name__ == "__main__":
    raise SystemExit(main())
