"""The records in a request's history, through admission."""

from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.admission.controller import AdmissionController
from proctor.server.admission.routing import Router
from proctor.server.config.budgets import RouterSettings
from proctor.server.engines.fake import MARKERS, ByteCodec, FakeEngine
from proctor.server.generation.base import Admission
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.messages import PriorThinking
from proctor.server.turns.history import History, RecordVerifier, verify
from proctor.server.turns.keyring import Keyring
from proctor.server.turns.record import TurnRecord, decode
from proctor.server.turns.secret_source import FixedSecrets
from tests.server.auth.keys import make_key
from tests.server.harness import body, settings
from tests.server.turns.records import (
    KEYRING,
    KEYS,
    OTHER_SECRET,
    SECRET,
    TEAM,
    RecordedRequest,
    make_record,
    make_request,
)

VERIFIER = RecordVerifier(FixedSecrets([SECRET]))
FOREIGN = "EqQBCkYIBxgCKkDw+Xj3n/6Pz9lQ==", "", "gAAAA", "\ud800", "é" * 99, "A" * 999
"""Strings that other servers may have issued, and worse."""


class CountingCodec(ByteCodec):
    """A codec that counts what it tokenizes."""

    def __init__(self) -> None:
        super().__init__(MARKERS, opens=True)
        self.texts: list[str] = []

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        self.texts.append(text)
        return super().encode(text, add_special_tokens=add_special_tokens)


class NoSecrets:
    """A source of secrets that must not be used."""

    async def keyring(self, wanted: Collection[bytes] = ()) -> Keyring:
        raise AssertionError("the secrets were read")


async def spent(*messages: str | Sequence[PriorThinking], tenant: str = TEAM) -> tuple[int, int]:
    """Return the tokens that the turn has spent, and how many texts were tokenized for that."""
    request, codec = make_request(*messages), CountingCodec()
    turn = await (await VERIFIER.verify(request, tenant)).resume(request.messages, codec)
    return turn.spent, len(codec.texts)


def block(text: str, tokens: int, total: int, **fields: Any) -> PriorThinking:
    """Return a block with its record."""
    return PriorThinking(text, make_record(text, tokens, total, **fields))


async def test_unaltered_blocks_count_as_recorded() -> None:
    history = [block("one", 30, 30)], [block("two", 4, 34), block("three", 5, 39)]

    assert await spent("hi", *history) == (39, 0)


async def test_a_record_counts_without_its_text() -> None:
    assert await spent("hi", [PriorThinking("", make_record("one", 30, 50))]) == (50, 0)
    assert await spent("hi", [PriorThinking("", make_record("one", 30, 50, sealed=True))]) == (
        50,
        0,
    )


async def test_an_altered_text_counts_as_the_larger_of_the_two() -> None:
    assert await spent("hi", [PriorThinking("x" * 40, make_record("x", 30, 30))]) == (40, 1)
    assert await spent("hi", [PriorThinking("x", make_record("x" * 40, 30, 30))]) == (30, 1)


@pytest.mark.parametrize("record", [None, *FOREIGN])
async def test_a_foreign_record_counts_as_none(record: str | None) -> None:
    assert await spent("hi", [PriorThinking("four", record)]) == (4, 1)
    assert await spent("hi", [PriorThinking("", record)]) == (0, 0)


async def test_a_record_of_another_key_counts_as_none() -> None:
    sealed = block("", 30, 30, tenant="team-b", sealed=True)

    assert await spent("hi", [block("four", 30, 30, tenant="team-b")]) == (4, 1)
    assert await spent("hi", [sealed]) == (0, 0)
    assert await spent("hi", [sealed], tenant="team-b") == (30, 0)


async def test_only_the_current_turn_counts() -> None:
    before = [block("before", 500, 500)]

    assert await spent("hi", before, "go on") == (0, 0)
    assert await spent("hi", before, "go on", [block("now", 3, 3)]) == (3, 0)


async def test_a_dropped_block_counts_if_a_later_one_is_sent() -> None:
    assert await spent("hi", [], [block("two", 4, 34)], [PriorThinking("four")]) == (38, 1)


async def test_the_newest_record_names_the_turn() -> None:
    old, new = (bytes([name]) * 16 for name in b"on")
    request = make_request(
        "hi", [block("b", 1, 1, turn=new, time=2), block("a", 1, 1, turn=old, time=1)]
    )
    codec = CountingCodec()

    turn = await (await VERIFIER.verify(request, TEAM)).resume(request.messages, codec)
    fresh = make_request("hi")
    begun = [
        await (await VERIFIER.verify(fresh, TEAM)).resume(fresh.messages, codec) for _ in range(2)
    ]

    def name(recorded: Any) -> bytes:
        recorder = recorded.recorder()
        recorder.add("text")
        found = decode(recorder.end(4), KEYS)
        assert found is not None
        return found.turn

    assert name(turn) == new
    assert name(begun[0]) != name(begun[1])


async def test_text_that_only_the_record_carries_is_put_back() -> None:
    hidden = PriorThinking("", make_record("hidden", 3, 3, sealed=True))
    dropped = PriorThinking("", make_record("dropped", 3, 3))
    theirs = PriorThinking("", make_record("theirs", 3, 3, sealed=True, tenant="team-b"))
    request = make_request(
        "hi", [PriorThinking("seen"), hidden], "go on", [hidden], [dropped], [theirs]
    )

    restored = (await VERIFIER.verify(request, TEAM)).restore(request)

    thoughts = [message.thought for message in restored.messages]
    assert thoughts == ["", "seen\nhidden", "", "hidden", "", ""]
    assert [message.thought for message in request.messages][1] == "seen"


async def test_a_chat_neither_reads_secrets_nor_has_a_record() -> None:
    request = ChatRequest.model_validate(
        body(
            messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "thinking": "four"}]
        )
    )
    history = await RecordVerifier(NoSecrets()).verify(request, TEAM)
    turn = await history.resume(request.messages, CountingCodec())

    assert history.restore(request) is request
    assert turn.spent == 4
    with pytest.raises(ValueError, match="no records"):
        turn.recorder()


ATTACKS = ["keep", "drop text", "drop record", "alter text", "alter record", "drop", "swap", "old"]


@given(
    calls=st.lists(st.tuples(st.text("ab", min_size=1, max_size=9), st.integers(1, 9)), max_size=5),
    attacks=st.lists(st.sampled_from(ATTACKS), min_size=5, max_size=5),
)
async def test_what_is_kept_cannot_be_talked_down(
    calls: list[tuple[str, int]], attacks: list[str]
) -> None:
    """The total is at least what any surviving record says, and what every surviving text costs."""
    blocks, at_least, total = [], 0, 0
    cheap = make_record("another", 1, 1, turn=bytes([7]) * 16)
    for (text, tokens), attack in zip(calls, attacks, strict=False):
        total += tokens
        record = make_record(text, tokens, total)
        altered = chr(ord(record[40]) ^ 1) if record[40].isdigit() else "0"
        sent = {
            "keep": PriorThinking(text, record),
            "drop text": PriorThinking("", record),
            "drop record": PriorThinking(text),
            "alter text": PriorThinking("c" + text, record),
            "alter record": PriorThinking(text, record[:40] + altered + record[41:]),
            "drop": PriorThinking(""),
            "swap": PriorThinking(text, cheap),
            "old": PriorThinking("", cheap),
        }[attack]
        blocks.append(sent)
        if attack in ("keep", "drop text", "alter text"):
            at_least = max(at_least, total)
        if attack in ("drop record", "alter record", "swap"):
            at_least += len(text)

    request = make_request("hi", *([each] for each in blocks))
    history = verify_all(request)
    assert (await history.resume(request.messages, CountingCodec())).spent >= at_least


def verify_all(request: RecordedRequest) -> History:
    blocks = {
        at: [verify(each, TEAM, KEYRING) for each in found]
        for at, found in request.prior_thinking.items()
    }
    return History(blocks, {}, TEAM, KEYRING)


async def admit(request: RecordedRequest, keyring: Sequence[bytes] = (SECRET,)) -> Admission:
    verifier = RecordVerifier(FixedSecrets(keyring))
    controller = AdmissionController(settings(), Router.load(RouterSettings()), verifier)
    return await controller.admit(request, FakeEngine(), "x", make_key(TEAM)[0])


async def test_a_turn_of_many_calls_never_exceeds_its_budget() -> None:
    """A client that sends back all records, and text only now and then."""
    blocks: list[list[PriorThinking]] = []
    allowed, used = [], 0
    for call in range(12):
        request = make_request("hi", *blocks, max_thinking_tokens=100)
        admission = await admit(request)
        maximum = admission.max_thinking_tokens(0)
        assert maximum is not None
        tokens = min(maximum, 13)
        recorder = admission.turn.recorder(sealed=call % 3 == 0)
        recorder.add("thought")
        record = recorder.end(tokens)
        used += tokens
        allowed.append(maximum)
        blocks.append([PriorThinking("thought" if call % 2 else "", record)])

    assert allowed == [max(0, 100 - 13 * call) for call in range(12)]
    assert used == 100
    assert admission.clamped_by == ("turn",)


async def test_a_rotated_secret_keeps_the_account_and_a_removed_one_does_not() -> None:
    request = make_request("hi", [block("four", 30, 50)], max_thinking_tokens=100)

    assert (await admit(request, [OTHER_SECRET, SECRET])).max_thinking_tokens(0) == 50
    assert (await admit(request, [OTHER_SECRET])).max_thinking_tokens(0) == 96


async def test_the_record_of_a_block_says_what_it_cost() -> None:
    request = make_request("hi", [block("earlier", 30, 50)])
    recorder = (await admit(request)).turn.recorder()
    recorder.add("fir")
    recorder.add("st")
    first = decode(recorder.end(7), KEYS)
    is_open = [recorder.is_open]
    recorder.add("second")
    is_open.append(recorder.is_open)
    second = decode(recorder.end(19), KEYS)

    def account(record: TurnRecord | None) -> tuple[int, int, bytes]:
        assert record is not None
        assert record.tenant == KEYS.tenant(TEAM)
        return record.tokens, record.spent, record.digest

    assert is_open == [False, True]
    assert account(first) == (7, 57, KEYS.digest("first"))
    assert account(second) == (12, 69, KEYS.digest("second"))
