import asyncio
import math
from collections.abc import AsyncGenerator, Callable

import pytest

from proctor.budget import EMPTY_RECORD, DesyncError, EndReason, EngineRecord, TokenBudget
from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import Channel, TextDelta
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Delta, Finish, Job, Sampling
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.errors import EngineUnavailable, Unavailable
from proctor.server.fair_queue import FairQueue
from proctor.server.generation.base import ChoiceResult, Progress, RequestObserver, StreamItem
from proctor.server.generation.context import RequestContext
from proctor.server.generation.runner import Choice, Outbox, TaskPool, generate
from tests.server.harness import CHAT, Gate, body, client, parse_events, with_timeout

WAIT = (tuple(b"Wait"),)
FOREVER = RequestContext(None, math.inf, math.inf)


class RecordingObserver(RequestObserver):
    def __init__(self) -> None:
        self.begun = 0
        self.stopped = 0
        self.cached: int | None = None
        self.ends: list[ChoiceResult] = []

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        self.begun += 1
        self.so_far = so_far

    def prompt_cached(self, choice: int, tokens: int) -> None:
        self.cached = tokens

    def choice_left_engine(self, choice: int) -> None:
        self.stopped += 1

    def choice_finished(self, result: ChoiceResult) -> None:
        self.ends.append(result)


class BudgetIgnoringEngine(FakeEngine):
    """An engine that ignores the budget."""

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        free = Job(job.id, job.prompt_ids, job.sampling, TokenBudget())
        async for delta in super().generate(free):
            yield delta


class AbortingEngine(FakeEngine):
    """An engine that aborts its jobs."""

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        yield Delta(list(b"a"))
        yield Delta([], Finish.ABORT)

    async def record(self, job: Job) -> EngineRecord:
        return EMPTY_RECORD


def choice(engine: FakeEngine, budget: TokenBudget | None = None) -> Choice:
    job = Job("job", (1,), Sampling(100), budget or TokenBudget())
    channels = ChannelSplitter(engine.codec, engine.model, job, 0, AnswerText())
    return Choice(engine, job, 0, channels, progress=False)


async def test_deltas_are_followed_by_the_result() -> None:
    observer, engine = RecordingObserver(), FakeEngine(Script(("a",), "b"))

    items = [
        item
        async for item in generate([choice(engine)], TaskPool(FairQueue(9, 9)), observer, FOREVER)
    ]

    assert items[:-1] == [
        TextDelta(0, Channel.REASONING, "a", thinking_tokens=1),
        TextDelta(0, Channel.ANSWER, "b", thinking_tokens=1),
    ]
    assert [items[-1]] == observer.ends
    assert (observer.ends[0].tokens, observer.ends[0].answer_tokens) == (4, 1)


async def test_a_choice_that_is_cancelled_before_it_runs_is_not_counted() -> None:
    observer, task_pool = RecordingObserver(), TaskPool(FairQueue(9, 9))
    items = generate([choice(FakeEngine())], task_pool, observer, FOREVER)

    first = asyncio.ensure_future(anext(items))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await task_pool.aclose()

    assert observer.begun == observer.stopped == len(observer.ends)


async def test_a_running_choice_reports_its_result_so_far() -> None:
    gate, observer, task_pool = Gate(6), RecordingObserver(), TaskPool(FairQueue(9, 9))
    engine = FakeEngine(Script(("a" * 9,), "b"), before_token=gate)

    first = asyncio.ensure_future(anext(generate([choice(engine)], task_pool, observer, FOREVER)))
    await with_timeout(gate.reached.wait())
    await first
    end = observer.so_far()
    await with_timeout(task_pool.aclose())

    assert (end.choice, end.finish, end.tokens, end.answer_tokens) == (0, Finish.ABORT, 6, 0)
    assert (end.outcome.tokens, end.outcome.end_reason) == (6, EndReason.CANCELLED)
    assert [each.tokens for each in observer.ends] == [6]


async def test_closing_the_pool_ends_running_choices_and_reports_their_results() -> None:
    gate, observer, task_pool = Gate(6), RecordingObserver(), TaskPool(FairQueue(9, 9))
    engine = FakeEngine(Script(("a",), "b"), before_token=gate)
    budget = TokenBudget(continuations=3, continuation_ids=WAIT)

    first = asyncio.ensure_future(
        anext(generate([choice(engine, budget)], task_pool, observer, FOREVER))
    )
    await with_timeout(gate.reached.wait())
    await with_timeout(task_pool.aclose())
    await first

    (end,) = observer.ends
    assert engine.aborted.get_nowait() == "job"
    assert end.finish is Finish.ABORT
    assert (end.outcome.tokens, end.outcome.continuations) == (6, 1)
    assert end.outcome.end_reason is EndReason.CANCELLED


async def test_after_end_running_and_waiting_and_new_requests_are_refused() -> None:
    gate, observer, task_pool = Gate(0), RecordingObserver(), TaskPool(FairQueue(1, 9))
    engine = FakeEngine(before_token=gate)

    async def ask() -> list[object]:
        return [item async for item in generate([choice(engine)], task_pool, observer, FOREVER)]

    running = asyncio.create_task(ask())
    await with_timeout(gate.reached.wait())
    waiting = asyncio.create_task(ask())
    await asyncio.sleep(0)
    task_pool.end()
    late = asyncio.create_task(ask())

    for asking in (running, waiting, late):
        with pytest.raises(Unavailable, match="shutting down"):
            await with_timeout(asking)
    await task_pool.aclose()
    assert len(engine.jobs) == 1
    assert observer.begun == observer.stopped == len(observer.ends)


@pytest.mark.parametrize(
    ("engine", "error"),
    [
        (BudgetIgnoringEngine(), DesyncError),
        (AbortingEngine(), EngineUnavailable),
        (FakeEngine(die_after=2), EngineUnavailable),
    ],
)
async def test_a_choice_that_fails_is_reported_as_aborted(
    engine: FakeEngine, error: type[Exception]
) -> None:
    observer = RecordingObserver()

    with pytest.raises(error):
        _ = [
            item
            async for item in generate(
                [choice(engine, TokenBudget(maximum=3))],
                TaskPool(FairQueue(9, 9)),
                observer,
                FOREVER,
            )
        ]

    assert [end.finish for end in observer.ends] == [Finish.ABORT]


async def test_a_budget_that_was_not_enforced_is_an_error_and_not_an_answer() -> None:
    async with client(BudgetIgnoringEngine()) as http:
        response = await http.post(CHAT, json=body(stream=True, max_thinking_tokens=2))

    last = parse_events(response.text)[-1]
    assert (last.name, last.data["error"]["type"]) == ("error", "server_error")


async def test_text_that_waits_for_the_response_is_joined_and_nothing_else() -> None:
    outbox = Outbox()
    progress = Progress(0, 1)
    items: list[StreamItem] = [
        TextDelta(0, Channel.REASONING, "a", token_ids=(1,), thinking_tokens=1),
        TextDelta(0, Channel.REASONING, "b", token_ids=(2,), thinking_tokens=2),
        TextDelta(1, Channel.REASONING, "c"),
        progress,
        TextDelta(0, Channel.REASONING, "d"),
        TextDelta(0, Channel.ANSWER, "e"),
    ]
    for item in items:
        outbox.put(item)

    joined = TextDelta(0, Channel.REASONING, "ab", token_ids=(1, 2), thinking_tokens=2)
    assert await outbox.take() == [joined, *items[2:]]


async def test_an_item_that_is_waited_for_is_not_held_back() -> None:
    outbox = Outbox()
    taking = asyncio.ensure_future(outbox.take())
    await asyncio.sleep(0)
    outbox.put(Progress(0, 1))
    assert await with_timeout(taking) == [Progress(0, 1)]
