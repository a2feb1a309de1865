"""Records that are issued while a choice streams, as soon as a block of its thinking ends."""

import math

import pytest

from proctor.budget import TokenBudget
from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import Channel, TextDelta
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Job, Sampling
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.fair_queue import FairQueue
from proctor.server.generation.base import ChoiceResult, RequestObserver
from proctor.server.generation.context import RequestContext
from proctor.server.generation.runner import Choice, TaskPool, generate
from proctor.server.turns.record import TurnRecord, decode
from proctor.server.turns.turn import Issuer, Turn
from tests.server.turns.records import KEYS, TEAM, TURN

FOREVER = RequestContext(None, math.inf, math.inf)
WAIT = (tuple(b"Wait"),)


async def stream(
    engine: FakeEngine, budget: TokenBudget, max_tokens: int
) -> tuple[list[TurnRecord | None], ChoiceResult]:
    """Stream a choice as a renderer does; return the records of its blocks, and its result."""
    job = Job("job", (1,), Sampling(max_tokens), budget)
    splitter = ChannelSplitter(engine.codec, engine.model, job, 0, AnswerText())
    choice = Choice(engine, job, 0, splitter)
    recorder = Turn(100, Issuer(TURN, TEAM, KEYS)).recorder(sealed=True)
    records = []
    async for item in generate([choice], TaskPool(FairQueue(9, 9)), RequestObserver(), FOREVER):
        if isinstance(item, ChoiceResult):
            if recorder.is_open:
                records.append(decode(recorder.end(item.used.thinking), KEYS))
            return records, item
        assert isinstance(item, TextDelta)
        if item.channel is Channel.REASONING:
            recorder.add(item.text)
        elif recorder.is_open:
            records.append(decode(recorder.end(item.thinking_tokens), KEYS))
    raise AssertionError("the choice has no result")


@pytest.mark.parametrize(
    ("budget", "max_tokens", "thought"),
    [
        (TokenBudget(), 100, "Let me see."),
        (TokenBudget(maximum=5), 100, "Let m"),
        (TokenBudget(maximum=8, wrap_up_ids=tuple(b"end")), 100, "Let mend"),
        (TokenBudget(minimum=15, continuation_ids=WAIT), 100, "Let me see.WaitLet me see."),
        (TokenBudget(), 6, "Let me"),
    ],
    ids=["natural", "maximum", "wrap-up", "continuation", "cut short"],
)
async def test_a_record_has_the_exact_tokens_when_its_block_ends(
    budget: TokenBudget, max_tokens: int, thought: str
) -> None:
    records, result = await stream(FakeEngine(Script()), budget, max_tokens)

    (record,) = records
    assert record is not None
    assert (record.tokens, record.spent) == (len(thought), 100 + len(thought))
    assert record.tokens == result.used.thinking
    assert record.text == thought
    assert record.digest == KEYS.digest(thought)


async def test_an_answer_without_thinking_has_no_record() -> None:
    records, result = await stream(FakeEngine(Script(())), TokenBudget(maximum=0), 100)

    assert (records, result.used.thinking) == ([], 0)
