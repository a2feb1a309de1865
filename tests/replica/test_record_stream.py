"""The record of a choice in a stream of events."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import EndReason, EngineRecord, Move, TokenBudget
from proctor.replica.record_stream import with_record
from proctor.server.engines.replicas.events import EventReader, read_logprobs

WAIT, OTHER, END = 7, 3, 9
MOVE = Move(3, 9, EndReason.SETTLED)
BUDGET = TokenBudget(minimum=5, continuation_ids=((WAIT, 8), (OTHER,)))


def event(tokens: list[int], finish: str | None = None) -> str:
    choice = {"index": 0, "token_ids": tokens, "finish_reason": finish, "logprobs": None}
    return f"data: {orjson.dumps({'choices': [choice]}).decode()}\n\n"


async def stream(events: list[str]) -> AsyncIterator[str | bytes]:
    for number, each in enumerate(events):
        yield each.encode() if number % 2 else each


async def collect(events: list[str], attempts: set[int]) -> tuple[list[Any], list[bool]]:
    """Return the records by event, and whether each call was the last."""
    calls: list[bool] = []

    async def read(*, is_over: bool) -> EngineRecord:
        calls.append(is_over)
        return EngineRecord(frozenset(attempts), (MOVE,))

    records = []
    async for each in with_record(stream(events), BUDGET, read):
        text = each if isinstance(each, str) else each.decode()
        records.append(orjson.loads(text[6:]).get("proctor") if "{" in text else None)
    return records, calls


async def test_the_record_comes_where_an_attempt_may_have_been_replaced_and_at_the_end() -> None:
    events = [event([1]), event([2, WAIT]), event([8]), event([OTHER]), event([END], "stop")]
    records, calls = await collect([*events, ": comment\n\n", "data: [DONE]\n\n"], {2, 4})
    record = {"attempts": [2, 4], "moves": [[3, 9, "settled"]]}
    assert records == [None, record, None, record, record, None, None]
    assert calls == [False, False, True]


async def test_events_without_choices_pass_as_they_are() -> None:
    usage = 'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n'
    error = 'data: {"error": {"message": "no"}}\n\n'
    records, calls = await collect([usage, error], set())
    assert (records, calls) == ([None, None], [])


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=8),
    st.data(),
)
async def test_any_chunks_of_the_bytes_give_the_same_tokens_and_record(
    tokens: list[list[int]], data: st.DataObject
) -> None:
    """The gateway's reader understands what the plugin writes, however it is cut."""

    async def read(*, is_over: bool) -> EngineRecord:
        return EngineRecord(frozenset({1}), (MOVE,))

    events = [event(each) for each in tokens[:-1]]
    events += [event(tokens[-1], "stop"), "data: [DONE]\n\n"]
    written = b""
    async for each in with_record(stream(events), BUDGET, read):
        written += each.encode() if isinstance(each, str) else each
    reader = EventReader(None, read_logprobs)
    seen: list[int] = []
    record = None
    while written:
        cut = data.draw(st.integers(1, len(written)))
        event_read = reader.read(written[:cut])
        written = written[cut:]
        if event_read is not None:
            seen += event_read.delta.token_ids
            record = event_read.record or record
    assert seen == [token for each in tokens for token in each]
    assert record == EngineRecord(frozenset({1}), (MOVE,))
    assert reader.complete
