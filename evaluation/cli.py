"""`proctor eval …`: asks a server, and reports what thinking was worth."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from evaluation.asking import PATIENCE_SECONDS, Examiner, Miscounted, Refused, Setting
from evaluation.report import to_markdown
from evaluation.running import BadStore, Store, outstanding, read_rows, run
from evaluation.scorers import SCORERS, BadScorer, load_scorer
from evaluation.tasks import BadTask, load_task

NO_MAXIMUM = -1
SOME = 5
"""Samples that stand for the rest, in an estimate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands to a parser of their own."""
    commands = parser.add_subparsers(dest="eval_command", required=True)
    asked = commands.add_parser("run", help="ask every question under every budget")
    asked.add_argument("task", help="a file of JSON lines, or the name of a task that is made")
    asked.add_argument("--base-url", default="http://127.0.0.1:8000/v1", help="up to /v1")
    asked.add_argument("--api-key", default="unused")
    asked.add_argument("--model", default="proctor-demo")
    asked.add_argument("--samples", type=int, default=1, help="of each question and setting")
    asked.add_argument("--count", type=int, help="of questions")
    asked.add_argument("--template", default="{question}", help="what is asked, with {question}")
    asked.add_argument(
        "--scorer", default="numeric", help=f"{', '.join(SCORERS)}, or module:function"
    )
    asked.add_argument("--temperature", type=float, default=0.6)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--at-a-time", type=int, default=16, help="requests")
    told = commands.add_parser("report", help="tell what a run says, as Markdown")
    for command in (asked, told):
        command.add_argument("--out", type=Path, default=Path("eval.jsonl"), help="the rows")
        command.add_argument("--budgets", type=_numbers, default=[0, 64, 256])
        command.add_argument("--continuations", type=_numbers, default=[])


def execute(options: argparse.Namespace) -> int:
    """Run the command that was chosen; the exit status."""
    settings = make_settings(options.budgets, options.continuations)
    try:
        if options.eval_command == "report":
            print(to_markdown(read_rows(options.out), settings), end="")
        else:
            asyncio.run(_run(options, settings))
    except KeyboardInterrupt:
        print(f"proctor: stopped; {options.out} has what came, run again to go on", file=sys.stderr)
        return 130
    except (BadTask, BadScorer, BadStore, Refused, Miscounted, ValueError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    return 0


def make_settings(budgets: Sequence[int], continuations: Sequence[int]) -> list[Setting]:
    """A setting for each maximum, and one for each number of continuations without a maximum."""
    capped = [
        Setting(
            "no maximum" if most == NO_MAXIMUM else f"at most {most}",
            {"max_thinking_tokens": most},
            most=None if most == NO_MAXIMUM else most,
        )
        for most in budgets
    ]
    sent_back = [
        Setting(
            f"{count} continuations",
            {"max_thinking_tokens": NO_MAXIMUM, "thinking": {"continuations": count}},
        )
        for count in continuations
    ]
    return [*capped, *sent_back]


async def _run(options: argparse.Namespace, settings: Sequence[Setting]) -> None:
    scorer = load_scorer(options.scorer)
    questions = load_task(options.task, options.template, options.count, options.seed)
    for question in questions:
        scorer("", question.answer)  # one that it cannot score ends the run before it costs
    headers = {"authorization": f"Bearer {options.api_key}"}
    async with httpx.AsyncClient(
        base_url=options.base_url, headers=headers, timeout=PATIENCE_SECONDS
    ) as client:
        examiner = Examiner(client, options.model, scorer, options.temperature, options.seed)
        with Store(options.out) as store, _progress() as progress:
            work = outstanding(settings, questions, options.samples, store.rows)
            bar = progress.add_task(f"{len(questions)} questions", total=len(work))
            first, rest = work[:SOME], work[SOME:]
            await run(examiner, first, store, 1, lambda _: progress.advance(bar))
            if rest:
                _estimate(store, len(first), len(rest), options.at_a_time)
            await run(examiner, rest, store, options.at_a_time, lambda _: progress.advance(bar))


def _progress() -> Progress:
    return Progress(
        *Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn()
    )


def _estimate(store: Store, seen: int, left: int, at_a_time: int) -> None:
    rows = store.rows[-seen:]
    seconds = sum(row.seconds for row in rows) / seen * left / at_a_time
    tokens = sum(row.generated for row in rows) / seen * left
    costs = [row.cost for row in rows if row.cost is not None]
    money = f", {sum(costs) / seen * left:.3g} of cost" if len(costs) == seen else ""
    print(
        f"about {left} answers, {tokens:,.0f} tokens{money}, and {seconds:,.0f} s if the server "
        f"answers {at_a_time} at a time as fast as one",
        file=sys.stderr,
    )


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers") from None
