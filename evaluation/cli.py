"""`proctor eval`: measure the accuracy and cost of thinking budgets on a running server."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import httpx
from rich.console import Console

from proctor.evaluation.client import (
    TIMEOUT_SECONDS,
    RequestRefused,
    ServerClient,
    TokenCountMismatch,
)
from proctor.evaluation.conditions import BUDGET_FIELD, Condition, Kind
from proctor.evaluation.progress import ask_all
from proctor.evaluation.report.findings import Findings
from proctor.evaluation.report.formatting import Section
from proctor.evaluation.report.renderers import to_html, to_markdown, to_terminal
from proctor.evaluation.report.sections import sections, two_models
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.runner import pending
from proctor.evaluation.scorers import ScorerError, load_scorer, scorer_names
from proctor.evaluation.store import Store, StoreError, read_store
from proctor.evaluation.tasks import TaskError, load_task
from proctor.evaluation.thinking_options import EarlyExit, Parallel

DEFAULT_OUT = Path("eval.jsonl")

Option = TypeVar("Option", EarlyExit, Parallel)

WIDTH = 132
"""Columns of a report that is not printed to a terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `proctor eval` to its parser."""
    commands = parser.add_subparsers(dest="eval_command", required=True)
    _add_run(commands.add_parser("run", help="send every question under every condition"))
    report = commands.add_parser("report", help="report the results of runs")
    report.add_argument("runs", nargs="*", type=Path, default=[DEFAULT_OUT], help="files of rows")
    report.add_argument("--large", type=Path, help="a run of a larger model, to compare with")
    report.add_argument(
        "--folder", type=Path, help="folder for the report as Markdown, HTML and pictures"
    )


def execute(options: argparse.Namespace) -> int:
    """Run the selected command and return its exit status."""
    try:
        if options.eval_command == "report":
            for path in options.runs:
                _report(path, options.large, options.folder)
        else:
            asyncio.run(_run(options))
    except KeyboardInterrupt:
        print(
            f"proctor: stopped; {options.out} has the answers so far, run again to continue",
            file=sys.stderr,
        )
        return 130
    except (
        TaskError,
        ScorerError,
        StoreError,
        RequestRefused,
        TokenCountMismatch,
        ValueError,
    ) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    return 0


def make_conditions(
    budgets: Sequence[int] = (),
    continuations: Sequence[int] = (),
    tiers: Sequence[str] = (),
    efforts: Sequence[str] = (),
    votes: int = 1,
    early_exits: Sequence[EarlyExit] = (),
    parallels: Sequence[Parallel] = (),
) -> list[Condition]:
    """Return a condition for each value, and the same with each option that applies to it.

    - Votes: caps of at least `votes`.
    - Early exits: caps other than 0, continuations and tiers.
    - Several chains share a total: tiers, and caps of 0 or of at least the number of chains.

    Raises:
        ValueError: if there is no value.
    """
    values: list[tuple[Kind, Sequence[int | str]]] = [
        (Kind.CAP, budgets),
        (Kind.CONTINUATIONS, continuations),
        (Kind.TIER, tiers),
        (Kind.EFFORT, efforts),
    ]
    conditions = [Condition(kind, value) for kind, listed in values for value in listed]
    if not conditions:
        raise ValueError(
            "there is nothing to compare: pass --budgets, --continuations, --tiers or --efforts"
        )
    if votes > 1:
        conditions += [Condition(Kind.CAP, total, votes) for total in budgets if total >= votes]
    thinking = [each for each in conditions if each.votes == 1 and each.kind != Kind.EFFORT]
    conditions += [
        replace(condition, early_exit=early_exit)
        for early_exit in early_exits
        for condition in thinking
        if condition.max_tokens != 0
    ]
    conditions += [
        replace(condition, parallel=parallel)
        for parallel in parallels
        for condition in thinking
        if _is_shareable(condition, parallel.chains)
    ]
    return list(dict.fromkeys(conditions))


def _is_shareable(condition: Condition, chains: int) -> bool:
    """Return whether the condition sets a total that this many chains can share."""
    if condition.kind == Kind.TIER:
        return True
    total = condition.max_tokens
    return total is not None and (total == 0 or total >= chains)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a file of JSON lines, or the name of a generated task")
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8000/v1", help="URL of the server, including /v1"
    )
    parser.add_argument("--api-key", default="unused")
    parser.add_argument("--model", default="proctor-demo")
    varied = parser.add_argument_group("conditions (comma-separated lists)")
    varied.add_argument(
        "--budgets", type=_numbers, default=[], help="caps in tokens; -1 is no maximum"
    )
    varied.add_argument(
        "--continuations", type=_numbers, default=[], help="numbers of continuations"
    )
    varied.add_argument("--tiers", type=_names, default=[], help="tiers; auto is the router")
    varied.add_argument("--efforts", type=_names, default=[], help="values of reasoning_effort")
    varied.add_argument(
        "--votes", type=_positive, default=1, help="also share each cap among this many answers"
    )
    varied.add_argument(
        "--early-exit",
        type=_options_of(EarlyExit.parse),
        default=[],
        metavar="METHOD[:FIELD=VALUE]…",
        help="also end the thinking of each cap, tier and number of continuations early; methods: "
        "entropy, answer, confidence; fields: threshold, every, patience, answer, floor, "
        "opening",
    )
    varied.add_argument(
        "--parallel",
        type=_options_of(Parallel.parse),
        default=[],
        metavar="CHAINS:METHOD[:FIELD=VALUE]…",
        help="also let the server share each cap and tier among this many chains; methods: vote, "
        "confidence, first_agreement, best_by_key; fields: answer, keep",
    )
    parser.add_argument(
        "--budget-field", default=BUDGET_FIELD, help="the server's request field for the cap"
    )
    parser.add_argument(
        "--samples", type=_positive, default=1, help="answers per question and condition"
    )
    parser.add_argument("--count", type=_positive, help="number of questions")
    parser.add_argument(
        "--template", default="{question}", help="the prompt, with fields of the row in braces"
    )
    parser.add_argument(
        "--scorer", default="numeric", help=f"{', '.join(scorer_names())}, or module:name"
    )
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--concurrency",
        "--at-a-time",
        type=_positive,
        default=16,
        help="maximum concurrent requests (--at-a-time is deprecated)",
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the file of rows")


async def _run(options: argparse.Namespace) -> None:
    conditions = _conditions(options)
    other_server = options.budget_field != BUDGET_FIELD
    if other_server and any(condition.proctor_only for condition in conditions):
        raise ValueError(
            "--continuations, --tiers, --early-exit and --parallel are Proctor's own fields; "
            "remove them, or --budget-field"
        )
    scorer = load_scorer(options.scorer)
    questions = load_task(options.task, options.template, options.count, options.seed)
    scorer.check(questions)
    config = _run_config(options)
    store = Store(options.out, config)
    work = pending(conditions, questions, options.samples, store.rows)
    headers = {"authorization": f"Bearer {options.api_key}"}
    async with httpx.AsyncClient(
        base_url=options.base_url, headers=headers, timeout=TIMEOUT_SECONDS
    ) as http:
        client = ServerClient(http, config, scorer)
        await ask_all(client, work, store, options.concurrency, Console(stderr=True))


def _conditions(options: argparse.Namespace) -> list[Condition]:
    return make_conditions(
        options.budgets,
        options.continuations,
        options.tiers,
        options.efforts,
        options.votes,
        options.early_exit,
        options.parallel,
    )


def _run_config(options: argparse.Namespace) -> RunConfig:
    path = Path(options.task)
    return RunConfig(
        model=options.model,
        task=path.name if path.exists() else options.task,
        template=options.template,
        scorer=options.scorer,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        budget_field=options.budget_field,
    )


def _report(path: Path, large: Path | None, folder: Path | None) -> None:
    stored = read_store(path)
    findings = Findings.of(stored.rows)
    report = sections(stored, findings)
    if large is not None:
        report.append(two_models(findings, Findings.of(read_store(large).rows)))
    title = f"Does thinking pay? {stored.config.model} on {stored.config.task}"
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    to_terminal(title, report, console)
    if folder is not None:
        _write(folder, path.stem, title, report, findings)


def _write(
    folder: Path, name: str, title: str, report: Sequence[Section], findings: Findings
) -> None:
    """Write the report's files; their names begin with the name of the run's file."""
    try:
        from proctor.evaluation.report import plots
    except ImportError as error:
        raise ValueError(f"pictures require the extra 'eval': {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    figures = plots.draw(findings)
    for figure, picture in figures.items():
        plots.save(picture, folder, f"{name}-{figure}")
    pictures = {figure: f"{name}-{figure}.svg" for figure in figures}
    drawings = {figure: plots.to_svg(picture, figure) for figure, picture in figures.items()}
    (folder / f"{name}.md").write_text(to_markdown(title, report, pictures), encoding="utf-8")
    (folder / f"{name}.html").write_text(to_html(title, report, drawings), encoding="utf-8")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive integer")
    return int(text)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in _names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of integers") from None


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _options_of(parse: Callable[[str], Option]) -> Callable[[str], list[Option]]:
    """Return a parser of a comma-separated list."""

    def convert(text: str) -> list[Option]:
        try:
            return [parse(part) for part in _names(text)]
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
