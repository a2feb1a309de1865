"""The thinking tokens of a turn, against a slow reference, and what a client can do to them."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proctor.server.schemas.messages import Message
from proctor.server.turns.account import VerifiedThinking, count_spent, turn_start
from proctor.server.turns.record import TurnRecord

TEXTS = st.text("ab", max_size=12)


def record(tokens: int, spent: int) -> TurnRecord:
    return TurnRecord(b"", b"", b"", tokens, spent, 0)


RECORDS = st.builds(record, st.integers(0, 20), st.integers(0, 60))
BLOCKS = st.builds(VerifiedThinking, TEXTS, st.none() | RECORDS, st.booleans())


def slowly(blocks: Sequence[VerifiedThinking]) -> int:
    """Return the largest of what follows from no record and from each one."""

    def tokens(block: VerifiedThinking) -> int:
        if block.record is None:
            return len(block.text)
        altered = bool(block.text) and block.altered
        return max(block.record.tokens, len(block.text)) if altered else block.record.tokens

    sums = [sum(map(tokens, blocks))]
    for at, block in enumerate(blocks):
        if block.record is not None:
            sums.append(block.record.spent + sum(map(tokens, blocks[at + 1 :])))
    return max(sums)


@given(blocks=st.lists(BLOCKS, max_size=8))
def test_spent_tokens_are_those_of_the_reference(blocks: list[VerifiedThinking]) -> None:
    assert count_spent(blocks, len) == slowly(blocks)


@given(blocks=st.lists(BLOCKS, max_size=8))
def test_no_less_is_spent_than_any_record_says(blocks: list[VerifiedThinking]) -> None:
    said = [block.record.spent for block in blocks if block.record is not None]

    assert count_spent(blocks, len) >= max(said, default=0)


@given(blocks=st.lists(BLOCKS, max_size=8), more=BLOCKS, at=st.integers(0, 8))
def test_a_block_put_in_anywhere_never_lowers_the_total(
    blocks: list[VerifiedThinking], more: VerifiedThinking, at: int
) -> None:
    assert count_spent([*blocks[:at], more, *blocks[at:]], len) >= count_spent(blocks, len)


@given(blocks=st.lists(BLOCKS, min_size=1, max_size=8), wrong=RECORDS, data=st.data())
def test_a_record_that_does_not_match_never_lowers_the_total(
    blocks: list[VerifiedThinking], wrong: TurnRecord, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(blocks) - 1))
    without = VerifiedThinking(blocks[at].text)
    mixed = VerifiedThinking(blocks[at].text, wrong, altered=True)

    totals = [count_spent([*blocks[:at], one, *blocks[at + 1 :]], len) for one in (mixed, without)]

    assert totals[0] >= totals[1]


@given(calls=st.lists(st.tuples(TEXTS, st.integers(0, 20), st.booleans()), max_size=8))
def test_an_honest_history_costs_what_was_spent_and_no_tokenization(
    calls: list[tuple[str, int, bool]],
) -> None:
    blocks, spent = [], 0
    for text, tokens, dropped in calls:
        spent += tokens
        blocks.append(VerifiedThinking("" if dropped else text, record(tokens, spent)))

    def refuse(_: str) -> int:
        raise AssertionError("tokenized")

    assert count_spent(blocks, refuse) == spent


def test_a_turn_begins_with_the_last_message_of_a_user() -> None:
    def start(*roles: Any) -> int:
        return turn_start([Message(role=role, content="x") for role in roles])

    assert start("system", "user", "assistant", "user", "assistant", "tool", "system") == 3
    assert start("user") == 0
    assert start("assistant", "tool") == 0
