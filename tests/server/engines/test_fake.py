import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import EndReason, TokenBudget, replay
from proctor.server.engines.base import Finish, Job, Sampling
from proctor.server.engines.fake import END_THINK, END_TURN, MARKERS, FakeEngine, Script
from proctor.server.errors import EngineUnavailable

WAIT = (tuple(b"Wait"), tuple(b"Hm"))


def job(max_tokens: int = 200, **budget: object) -> Job:
    return Job("job", (1,), Sampling(max_tokens), TokenBudget(**budget))  # type: ignore[arg-type]


async def generate(engine: FakeEngine, job: Job) -> tuple[list[int], Finish | None]:
    tokens: list[int] = []
    finish = None
    async for delta in engine.generate(job):
        tokens += delta.token_ids
        finish = delta.finish
    return tokens, finish


async def test_the_script_is_generated() -> None:
    tokens, finish = await generate(FakeEngine(Script(("hm",), "ok")), job())

    assert tokens == [*b"hm", END_THINK, *b"ok", END_TURN]
    assert finish is Finish.STOP


async def test_each_continuation_is_followed_by_the_next_thought() -> None:
    engine = FakeEngine(Script(("a", "b"), "ok"))
    requested = job(continuations=3, continuation_ids=WAIT)

    tokens, _ = await generate(engine, requested)

    assert bytes(tokens[: tokens.index(END_THINK)]) == b"aWaitbHmbWaitb"
    assert (await engine.record(requested)).attempts == {1, 6, 9}


async def test_stops_at_max_tokens() -> None:
    tokens, finish = await generate(FakeEngine(Script(("hm",), "ok")), job(max_tokens=4))

    assert (tokens, finish) == ([*b"hm", END_THINK, *b"o"], Finish.LENGTH)


async def test_an_end_of_turn_inside_the_thinking_closes_it() -> None:
    tokens, _ = await generate(FakeEngine(Script(([*b"hm", END_TURN, *b"never"],), "ok")), job())

    assert tokens == [*b"hm", END_THINK, *b"ok", END_TURN]


async def test_a_dead_engine_stays_dead() -> None:
    engine = FakeEngine(die_after=2)

    with pytest.raises(EngineUnavailable):
        await generate(engine, job())
    with pytest.raises(EngineUnavailable):
        await engine.health()


@given(data=st.data())
async def test_every_thinking_is_within_its_budget(data: st.DataObject) -> None:
    maximum = data.draw(st.none() | st.integers(0, 30))
    minimum = data.draw(st.integers(0, 30 if maximum is None else maximum))
    opened = data.draw(st.booleans())
    requested = job(
        minimum=minimum,
        maximum=maximum,
        continuations=data.draw(st.integers(0, 3)) if maximum != 0 else 0,
        continuation_ids=WAIT,
        opened=opened,
    )
    thoughts = data.draw(st.lists(st.text(max_size=20), min_size=1, max_size=4))
    engine = FakeEngine(Script(thoughts, "ok"), opens=opened)

    tokens, finish = await generate(engine, requested)

    machine = replay(requested.budget, MARKERS, tokens, (await engine.record(requested)).attempts)
    assert finish is Finish.STOP
    assert minimum <= machine.tokens
    assert maximum is None or machine.tokens <= maximum
    assert machine.outcome(EndReason.STOP).end_reason is not EndReason.STOP
