"""The engine over replicas that fail: what it retries, resumes, refuses, and tells."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

import pytest

from proctor.budget import TokenBudget, replay
from proctor.server.engines.base import Delta, Finish, Job, Sampling
from proctor.server.engines.fake import MARKERS, VOCABULARY
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.replicas.discovery import check_handshake
from proctor.server.engines.replicas.engine import ReplicaEngine
from proctor.server.errors import EngineUnavailable, UnsupportedRequest
from tests.server.engines.replicas.local import engine_over, job, local_model, running_engine
from tests.server.engines.replicas.scripted_replica import Faults, ScriptedReplica, handshake
from tests.waiting import PATIENCE


async def collect(engine: ReplicaEngine, of: Job) -> tuple[list[int], list[Delta]]:
    """Generate a job, and return its tokens and deltas; its budget must hold."""
    deltas: list[Delta] = []
    async with asyncio.timeout(PATIENCE), aclosing(engine.generate(of)) as stream:
        deltas.extend([delta async for delta in stream])
    tokens = [token for delta in deltas for token in delta.token_ids]
    attempts = (await engine.record(of)).attempts
    assert all(at < len(tokens) for at in attempts)
    machine = replay(of.budget, MARKERS, tokens, attempts, VOCABULARY)
    if of.budget.maximum is not None:
        assert machine.tokens <= of.budget.maximum
    return tokens, deltas


@pytest.fixture
async def two() -> AsyncIterator[list[ScriptedReplica]]:
    """Two replicas that work."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ScriptedReplica(n).serving()) for n in "ab"]


async def expected(of: Job) -> list[int]:
    """Return the tokens of a job on a replica that works."""
    async with ScriptedReplica().serving() as replica, running_engine(replica) as engine:
        tokens, _ = await collect(engine, of)
        return tokens


async def test_one_request_per_choice_whatever_its_continuations(
    two: list[ScriptedReplica],
) -> None:
    async with running_engine(*two) as engine:
        tokens, deltas = await collect(engine, job())
        attempts = [at for at, token in enumerate(tokens) if token == ord("W")]
        assert len(attempts) > 1
        assert sum(len(replica.bodies) for replica in two) == 1
        assert deltas[-1].finish in (Finish.STOP, Finish.LENGTH)
        assert [delta.cached_tokens for delta in deltas if delta.cached_tokens is not None] == [3]


@pytest.mark.parametrize("broken", ["status", "connection"])
async def test_what_has_not_begun_is_retried_elsewhere(
    two: list[ScriptedReplica], broken: str
) -> None:
    for replica in two:
        replica.faults = Faults(status=503) if broken == "status" else Faults(break_after=0)
    async with running_engine(*two) as engine:
        generating = asyncio.create_task(collect(engine, job()))
        asked = {asyncio.create_task(replica.asked.wait()) for replica in two}
        _, others = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        for replica in two:  # whoever is asked next works
            if not replica.bodies:
                replica.faults = Faults()
        tokens, _ = await generating
    assert tokens == await expected(job())
    assert [len(replica.bodies) for replica in two] == [1, 1]


@pytest.mark.parametrize("after", [1, 7, 33, 61, 70])
async def test_what_has_begun_is_resumed_with_its_budget_exact(
    two: list[ScriptedReplica], after: int
) -> None:
    async with running_engine(*two) as engine:
        first = await first_choice(engine, two)
        first.faults = Faults(break_after=after)
        tokens, _ = await collect(engine, job())
    assert tokens == await expected(job())


async def first_choice(engine: ReplicaEngine, replicas: list[ScriptedReplica]) -> ScriptedReplica:
    """Return the replica that the job's prompt goes to."""
    await collect(engine, job())
    (chosen,) = (replica for replica in replicas if replica.bodies)
    return chosen


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=120, seed=7),
        Sampling(max_tokens=120, presence_penalty=0.5),
        Sampling(max_tokens=120, frequency_penalty=-0.5),
    ],
)
async def test_a_choice_that_another_replica_would_draw_otherwise_is_not_resumed(
    two: list[ScriptedReplica], sampling: Sampling
) -> None:
    for replica in two:
        replica.faults = Faults(break_after=5)
    async with running_engine(*two) as engine:
        with pytest.raises(EngineUnavailable, match=r"closed the stream|connection"):
            await collect(engine, job(sampling=sampling))
    assert sum(len(replica.bodies) for replica in two) == 1


async def test_a_greedy_choice_with_a_seed_is_resumed(two: list[ScriptedReplica]) -> None:
    greedy = job(sampling=Sampling(max_tokens=120, temperature=0, seed=7))
    async with running_engine(*two) as engine:
        first = await first_choice(engine, two)
        first.faults = Faults(break_after=9)
        tokens, _ = await collect(engine, greedy)
    assert tokens == await expected(greedy)


@pytest.fixture
async def four() -> AsyncIterator[list[ScriptedReplica]]:
    """Four replicas that work."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ScriptedReplica(n).serving()) for n in "abcd"]


async def test_what_is_lost_without_a_token_is_retried_once(four: list[ScriptedReplica]) -> None:
    for replica in four:
        replica.faults = Faults(break_after=0)
    async with running_engine(*four) as engine:
        with pytest.raises(EngineUnavailable):
            await collect(engine, job())
    assert sum(len(replica.bodies) for replica in four) == 2


async def test_what_makes_progress_is_resumed_as_often_as_needed(
    four: list[ScriptedReplica],
) -> None:
    faults = Faults(break_after=9, breaks_left=3)
    for replica in four:
        replica.faults = faults
    async with running_engine(*four) as engine:
        tokens, _ = await collect(engine, job())
    assert [len(replica.bodies) for replica in four] == [1, 1, 1, 1]
    assert tokens == await expected(job())


async def test_closing_the_generator_aborts_it_on_the_replica() -> None:
    async with (
        ScriptedReplica(faults=Faults(seconds_per_token=0.01)).serving() as replica,
        running_engine(replica) as engine,
    ):
        async with aclosing(engine.generate(job())) as stream:
            await anext(stream)
        await asyncio.wait_for(replica.aborted.wait(), PATIENCE)


async def test_a_hung_replica_is_left_and_its_requests_are_resumed(
    two: list[ScriptedReplica], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_engine(*two) as engine:
        first = await first_choice(engine, two)
        first.faults = Faults(seconds_per_token=0.02)
        async with aclosing(engine.generate(job("job"))) as stream:
            tokens = [*(await anext(stream)).token_ids]
            first.faults.hangs = True
            async with asyncio.timeout(PATIENCE):
                async for delta in stream:
                    tokens += delta.token_ids
    assert tokens == await expected(job())


async def test_a_replica_that_comes_back_with_other_weights_gets_no_requests(
    two: list[ScriptedReplica],
) -> None:
    async with running_engine(*two) as engine:
        first = await first_choice(engine, two)
        first.faults = Faults(weights="others", break_after=3)
        first.probed.clear()
        await collect(engine, job())  # lost there, resumed on the other one
        await asyncio.wait_for(first.probed.wait(), PATIENCE)
        first.faults.break_after = None
        first.bodies.clear()
        for number in range(20):
            await collect(engine, job(f"later {number}"))
    assert not first.bodies


async def test_a_rejected_request_is_told_and_is_no_failure_of_the_replica() -> None:
    async with (
        ScriptedReplica(faults=Faults(status=400)).serving() as replica,
        running_engine(replica) as engine,
    ):
        with pytest.raises(UnsupportedRequest, match="told to fail"):
            await collect(engine, job())
        await engine.health()


async def test_prompt_logprobs_come_first() -> None:
    wanted = job(sampling=Sampling(max_tokens=120, prompt_logprobs=1))
    async with ScriptedReplica().serving() as replica, running_engine(replica) as engine:
        _, deltas = await collect(engine, wanted)
        assert len(deltas[0].prompt_logprobs or ()) == len(wanted.prompt_ids) - 1
        _, alone = await collect(engine, job(sampling=Sampling(max_tokens=0, prompt_logprobs=1)))
        assert [delta.finish for delta in alone] == [Finish.LENGTH]


async def test_salts_traces_and_priorities_travel() -> None:
    async with (
        ScriptedReplica().serving() as replica,
        running_engine(replica, salt="secret") as engine,
    ):
        for name, owner in (("a", "one"), ("b", "two"), ("c", "one")):
            headers = {"traceparent": f"00-{name}"}
            await collect(engine, job(name, owner=owner, headers=headers, priority=ord(name)))
    assert [body["priority"] for body in replica.bodies] == [*b"abc"]
    one, two, again = (body["cache_salt"] for body in replica.bodies)
    assert one == again != two
    assert "one" not in one
    assert [headers["traceparent"] for headers in replica.headers] == ["00-a", "00-b", "00-c"]


async def test_without_replicas_it_is_unavailable_and_recovers(two: list[ScriptedReplica]) -> None:
    async with running_engine(*two) as engine:
        for replica in two:
            replica.faults = Faults(break_after=0)
        with pytest.raises(EngineUnavailable):
            await collect(engine, job())
        for replica in two:
            replica.faults = Faults()
        tokens, _ = await collect(engine, job())
        await engine.health()
    assert tokens == await expected(job())


@pytest.mark.parametrize("field", ["wire", "markers", "vocabulary"])
def test_a_replica_of_another_model_or_version_is_refused(field: str) -> None:
    check_handshake(handshake(), local_model())
    changed: dict[str, Any] = {field: 9 if field == "wire" else "other"}
    other = replace(handshake(), **changed)
    with pytest.raises(ValueError, match=f"the replicas' {field}"):
        check_handshake(other, local_model())


async def test_requests_that_vllm_rejects_never_reach_a_replica() -> None:
    engine = engine_over(["http://127.0.0.1:1"])
    await engine.check(job())
    for wrong in (Sampling(max_tokens=5, top_logprobs=21), Sampling(max_tokens=5, temperature=-1)):
        with pytest.raises(UnsupportedRequest):
            await engine.check(job(sampling=wrong, budget=TokenBudget()))


async def test_a_session_stays_on_its_replica(two: list[ScriptedReplica]) -> None:
    async with running_engine(*two) as engine:
        for number in range(12):
            prompt = b"".join(f"{call:02}".encode() * 40 for call in range(number + 1))
            await collect(engine, job(f"call {number}", session="one", prompt_ids=tuple(prompt)))
    assert sorted(len(replica.bodies) for replica in two) == [0, 12]


async def test_what_is_lost_behind_a_single_address_is_resumed_there() -> None:
    """The address may be that of a router."""
    faults = Faults(break_after=9, breaks_left=1)
    replica = ScriptedReplica(faults=faults)
    async with replica.serving(), running_engine(replica) as engine:
        tokens, _ = await collect(engine, job())
    assert len(replica.bodies) == 2
    assert tokens == await expected(job())


async def test_a_prompt_of_megabytes_reaches_the_replica() -> None:
    long = job(prompt_ids=tuple(b"abcdefg " * 60_000))
    async with ScriptedReplica().serving() as replica, running_engine(replica) as engine:
        await collect(engine, long)
    assert replica.bodies[0]["token_ids"] == [*long.prompt_ids]


async def test_an_engine_that_no_longer_probes_is_restarted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timeouts = StallTimeouts(PATIENCE, PATIENCE)
    async with ScriptedReplica().serving() as replica, running_engine(replica) as engine:
        await engine.heartbeat(timeouts)
        pool = engine._pooled
        monkeypatch.setattr(pool, "_check", lambda *_: 1 / 0)
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(pool._tasks, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(EngineUnavailable, match="not probed"):
            await engine.heartbeat(timeouts)
