"""Runs every condition over every question; answers that are stored are not requested again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from proctor.evaluation.client import RequestRefused, ServerClient
from proctor.evaluation.conditions import Condition
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.store import Store
from proctor.evaluation.tasks import Question

INVALID_STATUSES = (400, 413, 422)
"""The statuses by which servers say that a request, and not the server, is at fault."""


class WorkItem(NamedTuple):
    """An answer to request."""

    condition: Condition
    question: Question
    sample: int


def pending(
    conditions: Sequence[Condition],
    questions: Sequence[Question],
    samples: int,
    rows: Iterable[AnswerRecord],
) -> list[WorkItem]:
    """Return the missing answers, ordered by sample, so that an interrupted run is balanced.

    A condition with votes needs `votes` times as many samples.
    """
    done = {row.key for row in rows}
    max_samples = samples * max((condition.votes for condition in conditions), default=1)
    return [
        WorkItem(condition, question, sample)
        for sample in range(max_samples)
        for question in questions
        for condition in conditions
        if sample < samples * condition.votes and (condition, question.id, sample) not in done
    ]


async def run(
    client: ServerClient,
    work: Sequence[WorkItem],
    store: Store,
    concurrency: int,
    on_answer: Callable[[AnswerRecord], None],
    on_refusal: Callable[[RequestRefused], None] | None = None,
) -> None:
    """Request all answers and store them; answers before a failure are kept.

    Args:
        client: sends the requests.
        work: the answers to request.
        store: stores them; it must be open.
        concurrency: the maximum of concurrent requests.
        on_answer: called with each answer.
        on_refusal: called with the error of a request that the server refuses as invalid, such as
            one that is too long; the run goes on unless it raises. None is to end the run.

    Raises:
        RequestRefused: if the server does not answer.
        TokenCountMismatch: if its count of thinking tokens is wrong.
    """
    queue = iter(work)

    async def worker() -> None:
        for condition, question, sample in queue:
            try:
                row = await client.ask(condition, question, sample)
            except RequestRefused as refusal:
                if on_refusal is None or refusal.status not in INVALID_STATUSES:
                    raise
                on_refusal(refusal)
            else:
                store.add(row)
                on_answer(row)

    async with _group() as tasks:
        tasks += [asyncio.create_task(worker()) for _ in range(min(concurrency, len(work)))]


@asynccontextmanager
async def _group() -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run tasks together; the first failure cancels all, and is raised as it is."""
    tasks: list[asyncio.Task[None]] = []
    try:
        yield tasks
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
