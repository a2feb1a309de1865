"""Runs settings over questions; what was asked already is not asked again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from proctor.evaluation.client import ServerClient
from proctor.evaluation.conditions import Condition
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.store import Store
from proctor.evaluation.tasks import Question


class WorkItem(NamedTuple):
    """One answer that is wanted."""

    setting: Condition
    question: Question
    sample: int


def pending(
    settings: Sequence[Condition],
    questions: Sequence[Question],
    samples: int,
    rows: Iterable[AnswerRecord],
) -> list[WorkItem]:
    """What is still to be asked; sample by sample, so that a run that is cut short is even.

    A setting whose answers vote needs that many times the samples.
    """
    done = {row.key for row in rows}
    most = samples * max((setting.votes for setting in settings), default=1)
    return [
        WorkItem(setting, question, sample)
        for sample in range(most)
        for question in questions
        for setting in settings
        if sample < samples * setting.votes and (setting, question.id, sample) not in done
    ]


async def run(
    examiner: ServerClient,
    work: Sequence[WorkItem],
    store: Store,
    concurrency: int,
    tell: Callable[[AnswerRecord], None],
) -> None:
    """Ask all of it; what came until a failure is kept.

    Raises:
        Refused: if the server does not answer.
        Miscounted: if its accounts are wrong.
    """
    queue = iter(work)

    async def ask_on() -> None:
        for setting, question, sample in queue:
            row = await examiner.ask(setting, question, sample)
            store.add(row)
            tell(row)

    async with _group() as tasks:
        tasks += [asyncio.create_task(ask_on()) for _ in range(min(concurrency, len(work)))]


@asynccontextmanager
async def _group() -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that end together: the first failure ends all, and is raised as it is."""
    tasks: list[asyncio.Task[None]] = []
    try:
        yield tasks
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
