"""The request queue in front of the engine."""

import asyncio
from collections import Counter
from random import Random

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine
from proctor.server.errors import Overloaded
from proctor.server.fair_queue import FairQueue
from tests.server.harness import CHAT, Gate, advance_clock, body, client, parse_events, with_timeout


async def waiting(line: FairQueue, key: str, size: int = 1) -> asyncio.Task[float]:
    """Start a task that enters the queue, and let it run."""
    task = asyncio.create_task(line.enter(key, size))
    await asyncio.sleep(0)
    return task


async def test_requests_beyond_the_slots_wait() -> None:
    line = FairQueue(slots=2, max_waiting=9)
    since = [await with_timeout(line.enter("a", 1)) for _ in range(2)]
    third = await waiting(line, "a")

    assert (line.running, line.waiting, third.done()) == (2, 1, False)
    line.leave(since[0])
    await with_timeout(third)
    assert (line.running, line.waiting) == (2, 0)


async def test_a_full_queue_refuses_requests() -> None:
    line = FairQueue(slots=1, max_waiting=2)
    since = await line.enter("a", 1)
    first, _ = await waiting(line, "a"), await waiting(line, "b")

    with pytest.raises(Overloaded) as refused:
        await line.enter("c", 1)

    assert int(refused.value.headers["retry-after"]) >= 1
    line.leave(since)
    await with_timeout(first)
    await waiting(line, "c")


async def test_free_slots_are_used_even_without_room_in_the_queue() -> None:
    line = FairQueue(slots=1, max_waiting=0)

    since = await with_timeout(line.enter("a", 1))
    with pytest.raises(Overloaded):
        line.check()
    line.leave(since)

    line.check()


async def test_keys_are_served_round_robin() -> None:
    line = FairQueue(slots=1, max_waiting=99)
    since = await line.enter("greedy", 1)
    order: list[str] = []

    async def work(key: str) -> None:
        mine = await line.enter(key, 1)
        order.append(key)
        line.leave(mine)

    tasks = [asyncio.create_task(work(key)) for key in ["greedy"] * 5 + ["modest"] * 2]
    await asyncio.sleep(0)
    line.leave(since)
    await with_timeout(asyncio.gather(*tasks))

    assert order[:4] in (["greedy", "modest"] * 2, ["modest", "greedy"] * 2)
    assert Counter(order) == {"greedy": 5, "modest": 2}


async def test_several_choices_are_not_overtaken() -> None:
    line = FairQueue(slots=3, max_waiting=9)
    since = [await line.enter("a", 1) for _ in range(2)]
    large, small = await waiting(line, "a", 3), await waiting(line, "b", 1)

    assert not small.done()
    for each in since:
        line.leave(each)
    await with_timeout(large)
    assert not small.done()


async def test_more_choices_than_slots_run_alone() -> None:
    line = FairQueue(slots=2, max_waiting=9)

    since = await with_timeout(line.enter("a", 5))
    other = await waiting(line, "b")

    assert (line.running, line.waiting) == (5, 1)
    for _ in range(3):
        line.leave(since)
    assert (line.running, line.waiting) == (2, 1)
    for _ in range(2):
        line.leave(since)
    await with_timeout(other)
    assert line.running == 1


async def test_a_cancelled_request_leaves_the_queue() -> None:
    line = FairQueue(slots=1, max_waiting=9)
    since = await line.enter("a", 1)
    gone, here = await waiting(line, "a"), await waiting(line, "b")

    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    line.leave(since)

    await with_timeout(here)
    assert (line.running, line.waiting) == (1, 0)


@given(seed=st.integers(0, 2**32), slots=st.integers(1, 4))
async def test_counts_are_consistent_after_any_sequence_of_events(seed: int, slots: int) -> None:
    rng = Random(seed)
    line = FairQueue(slots, max_waiting=6)
    running = 0

    async def visit() -> None:
        nonlocal running
        size = rng.randint(1, slots + 1)
        try:
            since = await line.enter(rng.choice("abc"), size)
        except Overloaded:
            return
        running += size
        assert running <= slots or running == size
        try:
            for _ in range(rng.randint(0, 3)):
                await asyncio.sleep(0)
        finally:
            running -= size
            for _ in range(size):
                line.leave(since)

    tasks = [asyncio.create_task(visit()) for _ in range(20)]
    for task in rng.sample(tasks, 6):
        for _ in range(rng.randint(0, 3)):
            await asyncio.sleep(0)
        task.cancel()
    done = await with_timeout(asyncio.gather(*tasks, return_exceptions=True))

    assert not [each for each in done if isinstance(each, AssertionError)]
    assert (line.running, line.waiting, line.waiting_keys) == (0, 0, 0)
    await with_timeout(line.enter("a", 1))  # nothing left of earlier keys blocks it
    assert (line.running, line.waiting, line.waiting_keys) == (1, 0, 0)


async def ask(http: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await http.post(CHAT, json=body(), headers=headers)


async def test_a_request_beyond_the_queue_gets_a_429() -> None:
    gate = Gate(1)
    engine = FakeEngine(before_token=gate)
    async with client(engine, limits={"max_running": 1, "max_waiting": 1}) as http:
        running = asyncio.create_task(ask(http))
        await with_timeout(gate.reached.wait())
        others = {asyncio.create_task(ask(http)) for _ in range(2)}
        (first,), (second,) = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        gate.opened.set()
        answers = await with_timeout(asyncio.gather(running, second))

    refused = first.result()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_the_timeout_ends_a_running_request(stream: bool) -> None:
    async def too_long(_: Job, position: int) -> None:
        if position == 3:
            advance_clock(61)
            await asyncio.Event().wait()

    engine = FakeEngine(before_token=too_long)
    async with client(engine) as http:
        response = await http.post(
            CHAT, json=body(stream=stream), headers={"x-request-timeout": "60"}
        )
        name = await with_timeout(engine.aborted.get())

    assert name == engine.jobs[0].id
    if stream:
        last = parse_events(response.text)[-1]
        assert (last.name, last.data["error"]["code"]) == ("error", "timeout")
    else:
        assert response.status_code == 504


async def test_the_timeout_applies_in_the_queue() -> None:
    gate = Gate(1)
    engine = FakeEngine(before_token=gate)
    async with client(engine, limits={"max_running": 1}) as http:
        running = asyncio.create_task(ask(http))
        await with_timeout(gate.reached.wait())
        late = await ask(http, **{"x-request-timeout": "0.05"})
        gate.opened.set()
        answer = await with_timeout(running)
        after = await ask(http)

    assert late.status_code == 504
    assert (answer.status_code, after.status_code) == (200, 200)
    assert len(engine.jobs) == 2


async def test_the_operators_timeout_caps_the_requests() -> None:
    engine = FakeEngine(before_token=Gate(3))
    async with client(engine, limits={"max_request_seconds": 0.05}) as http:
        assert (await ask(http, **{"x-request-timeout": "60"})).status_code == 504


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "", "1e-9", "0.009"])
async def test_an_invalid_timeout_is_refused(seconds: str) -> None:
    async with client(FakeEngine()) as http:
        response = await ask(http, **{"x-request-timeout": seconds})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-request-timeout"
