"""`proctor eval …`: asks a server, and reports what thinking was worth."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from proctor.evaluation import forecast
from proctor.evaluation.client import (
    PATIENCE_SECONDS,
    RequestRefused,
    ServerClient,
    TokenCountMismatch,
)
from proctor.evaluation.conditions import BUDGET_FIELD, Condition, Kind
from proctor.evaluation.report.findings import Findings
from proctor.evaluation.report.formatting import Section
from proctor.evaluation.report.renderers import to_html, to_markdown, to_terminal
from proctor.evaluation.report.sections import sections, two_models
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.runner import WorkItem, pending, run
from proctor.evaluation.scorers import BadScorer, load_scorer, scorer_names
from proctor.evaluation.store import BadStore, Store, read_store
from proctor.evaluation.tasks import BadTask, load_task

SOME = 5
"""Answers that stand for the rest, in an estimate."""

OUT = Path("eval.jsonl")

WIDTH = 132
"""Of a report that goes to no terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands to a parser of their own."""
    commands = parser.add_subparsers(dest="eval_command", required=True)
    _add_run(commands.add_parser("run", help="ask every question under every budget"))
    told = commands.add_parser("report", help="tell what runs say")
    told.add_argument("runs", nargs="*", type=Path, default=[OUT], help="files of rows")
    told.add_argument("--large", type=Path, help="a run of a larger model, to compare with")
    told.add_argument("--folder", type=Path, help="where to write Markdown, a page and pictures")


def execute(options: argparse.Namespace) -> int:
    """Run the command that was chosen; the exit status."""
    try:
        if options.eval_command == "report":
            for path in options.runs:
                _report(path, options.large, options.folder)
        else:
            asyncio.run(_run(options))
    except KeyboardInterrupt:
        print(f"proctor: stopped; {options.out} has what came, run again to go on", file=sys.stderr)
        return 130
    except (BadTask, BadScorer, BadStore, RequestRefused, TokenCountMismatch, ValueError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    return 0


def make_settings(
    budgets: Sequence[int] = (),
    continuations: Sequence[int] = (),
    tiers: Sequence[str] = (),
    efforts: Sequence[str] = (),
    votes: int = 1,
) -> list[Condition]:
    """A setting for each value; with votes, one more for each cap that can be shared.

    Raises:
        ValueError: if there is none.
    """
    values: list[tuple[Kind, Sequence[int | str]]] = [
        (Kind.CAP, budgets),
        (Kind.CONTINUATIONS, continuations),
        (Kind.TIER, tiers),
        (Kind.EFFORT, efforts),
    ]
    made = [Condition(kind, value) for kind, listed in values for value in listed]
    if not made:
        raise ValueError("there is nothing to compare: give budgets, tiers or efforts")
    if votes > 1:
        made += [Condition(Kind.CAP, total, votes) for total in budgets if total >= votes]
    return list(dict.fromkeys(made))


def _add_run(asked: argparse.ArgumentParser) -> None:
    asked.add_argument("task", help="a file of JSON lines, or the name of a task that is made")
    asked.add_argument("--base-url", default="http://127.0.0.1:8000/v1", help="up to /v1")
    asked.add_argument("--api-key", default="unused")
    asked.add_argument("--model", default="proctor-demo")
    varied = asked.add_argument_group("what is varied (lists with commas)")
    varied.add_argument("--budgets", type=_numbers, default=[], help="caps; -1 is no maximum")
    varied.add_argument("--continuations", type=_numbers, default=[])
    varied.add_argument("--tiers", type=_names, default=[], help="auto is the router")
    varied.add_argument("--efforts", type=_names, default=[], help="reasoning_effort")
    varied.add_argument(
        "--votes", type=_positive, default=1, help="share each cap among so many answers too"
    )
    asked.add_argument("--budget-field", default=BUDGET_FIELD, help="what the server calls a cap")
    asked.add_argument("--samples", type=_positive, default=1, help="of each question and setting")
    asked.add_argument("--count", type=_positive, help="of questions")
    asked.add_argument("--template", default="{question}", help="what is asked, with {question}")
    asked.add_argument(
        "--scorer", default="numeric", help=f"{', '.join(scorer_names())}, or module:name"
    )
    asked.add_argument("--temperature", type=float, default=0.6)
    asked.add_argument("--top-p", type=float, default=0.95)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument(
        "--concurrency",
        "--at-a-time",
        type=_positive,
        default=16,
        help="requests at a time (--at-a-time is deprecated)",
    )
    asked.add_argument("--out", type=Path, default=OUT, help="the file of rows")


async def _run(options: argparse.Namespace) -> None:
    settings = make_settings(
        options.budgets, options.continuations, options.tiers, options.efforts, options.votes
    )
    foreign = options.budget_field != BUDGET_FIELD
    if foreign and any(setting.proctors_own for setting in settings):
        raise ValueError("continuations and tiers are Proctor's own, and not of another server")
    scorer = load_scorer(options.scorer)
    questions = load_task(options.task, options.template, options.count, options.seed)
    scorer.check(questions)
    protocol = _protocol(options)
    store = Store(options.out, protocol)
    work = pending(settings, questions, options.samples, store.rows)
    headers = {"authorization": f"Bearer {options.api_key}"}
    async with httpx.AsyncClient(
        base_url=options.base_url, headers=headers, timeout=PATIENCE_SECONDS
    ) as client:
        await _ask(ServerClient(client, protocol, scorer), work, store, options.concurrency)


async def _ask(
    examiner: ServerClient, work: Sequence[WorkItem], store: Store, concurrency: int
) -> None:
    """Ask it all, under a bar, with a word before and another after the first answers."""
    console = Console(stderr=True)
    if not work:
        console.print("nothing is left to ask")
        return
    console.print(await forecast.before(examiner, work))
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with store, Progress(*columns, console=console) as progress:
        bar = progress.add_task("answers", total=len(work))
        first, rest = work[:SOME], work[SOME:]
        await run(examiner, first, store, 1, lambda _: progress.advance(bar))
        if rest:
            console.print(forecast.after(store.rows[-len(first) :], rest, concurrency))
        await run(examiner, rest, store, concurrency, lambda _: progress.advance(bar))


def _protocol(options: argparse.Namespace) -> RunConfig:
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
    kept = read_store(path)
    findings = Findings.of(kept.rows)
    told = sections(kept, findings)
    if large is not None:
        told.append(two_models(findings, Findings.of(read_store(large).rows)))
    title = f"Does thinking pay? {kept.protocol.model} on {kept.protocol.task}"
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    to_terminal(title, told, console)
    if folder is not None:
        _write(folder, path.stem, title, told, findings)


def _write(
    folder: Path, name: str, title: str, told: Sequence[Section], findings: Findings
) -> None:
    """Files in a folder; the names of a run's files begin with its own."""
    try:
        from proctor.evaluation.report import plots
    except ImportError as error:
        raise ValueError(f"pictures need the extra 'eval': {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    figures = plots.draw(findings)
    for figure, picture in figures.items():
        plots.save(picture, folder, f"{name}-{figure}")
    pictures = {figure: f"{name}-{figure}.svg" for figure in figures}
    drawings = {figure: plots.to_svg(picture, figure) for figure, picture in figures.items()}
    (folder / f"{name}.md").write_text(to_markdown(title, told, pictures), encoding="utf-8")
    (folder / f"{name}.html").write_text(to_html(title, told, drawings), encoding="utf-8")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in _names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers") from None


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
