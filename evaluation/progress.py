"""Sends the requests of a run, and shows on a terminal what they will cost and how far they are."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from proctor.evaluation import forecast
from proctor.evaluation.client import RequestRefused, ServerClient
from proctor.evaluation.runner import WorkItem, run
from proctor.evaluation.store import Store

FIRST_ANSWERS = 5
"""Answers from which the time and cost of the rest are estimated."""


async def ask_all(
    client: ServerClient,
    work: Sequence[WorkItem],
    store: Store,
    concurrency: int,
    console: Console,
    on_refusal: Callable[[RequestRefused], None] | None = None,
) -> None:
    """Send all requests, with a progress bar; estimate time and cost after the first answers.

    Args:
        client: sends the requests.
        work: the answers to request.
        store: stores them; it is opened and closed.
        concurrency: the maximum of concurrent requests.
        console: shows the progress.
        on_refusal: as that of `proctor.evaluation.runner.run`.

    Raises:
        RequestRefused: if the server does not answer.
        TokenCountMismatch: if its count of thinking tokens is wrong.
    """
    if not work:
        console.print("all answers are there already")
        return
    console.print(await forecast.before(client, work))
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with store, Progress(*columns, console=console) as progress:
        bar = progress.add_task("answers", total=len(work))
        first, rest = work[:FIRST_ANSWERS], work[FIRST_ANSWERS:]
        known = len(store.rows)
        await run(client, first, store, 1, lambda _: progress.advance(bar), on_refusal)
        answers = store.rows[known:]
        if rest and answers:
            console.print(forecast.after(answers, rest, concurrency))
        await run(client, rest, store, concurrency, lambda _: progress.advance(bar), on_refusal)
