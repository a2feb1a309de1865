"""The strings that clients carry: no one but the server can make or change them."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.turns.keyring import RecordKeys
from proctor.server.turns.record import (
    MAX_LENGTH,
    MAX_TEXT_BYTES,
    TurnRecord,
    decode,
    encode,
    secret_id,
)
from tests.server.turns.records import KEYS, OTHER_SECRET, TEAM, make_record

OTHER_KEYS = RecordKeys.of(OTHER_SECRET)
COUNTS = st.integers(0, 2**64 - 1)
RECORDS = st.builds(
    TurnRecord,
    tenant=st.binary(min_size=16, max_size=16),
    turn=st.binary(min_size=16, max_size=16),
    digest=st.binary(min_size=32, max_size=32),
    tokens=COUNTS,
    spent=COUNTS,
    time=COUNTS,
    text=st.none() | st.text(st.characters(), max_size=64),
)
STRINGS = st.text(st.characters(), max_size=400) | st.binary(max_size=300).map(
    lambda raw: urlsafe_b64encode(raw).decode()
)


def to_bytes(encoded: str) -> bytearray:
    return bytearray(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))


def to_text(raw: bytes | bytearray) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@given(record=RECORDS)
def test_a_record_is_read_as_it_was_written(record: TurnRecord) -> None:
    encoded = encode(record, KEYS)

    assert decode(encoded, KEYS) == record
    assert secret_id(encoded) == KEYS.id


@given(string=STRINGS)
def test_no_other_string_is_a_record(string: str) -> None:
    assert decode(string, KEYS) is None


@given(rest=st.binary(max_size=300), form=st.integers(0, 3))
def test_no_string_with_the_head_of_a_record_is_one(rest: bytes, form: int) -> None:
    assert decode(to_text(bytes([1, form]) + KEYS.id + rest), KEYS) is None


@given(record=RECORDS, data=st.data())
def test_every_bit_is_authenticated(record: TurnRecord, data: st.DataObject) -> None:
    raw = to_bytes(encode(record, KEYS))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8

    assert decode(to_text(raw), KEYS) is None


@given(record=RECORDS, data=st.data())
def test_every_character_counts(record: TurnRecord, data: st.DataObject) -> None:
    encoded = encode(record, KEYS)
    at = data.draw(st.integers(0, len(encoded) - 1))
    character = data.draw(st.characters())
    altered = encoded[:at] + character + encoded[at + 1 :]

    assert decode(altered, KEYS) == (record if character == encoded[at] else None)


@given(record=RECORDS, data=st.data(), more=st.text(min_size=1, max_size=9))
def test_a_record_cut_short_or_extended_is_invalid(
    record: TurnRecord, data: st.DataObject, more: str
) -> None:
    encoded = encode(record, KEYS)
    cut = data.draw(st.integers(0, len(encoded) - 1))

    assert decode(encoded[:cut], KEYS) is None
    assert decode(encoded + more, KEYS) is None
    assert decode(more + encoded, KEYS) is None


@given(record=RECORDS)
def test_another_secret_neither_makes_nor_reads_a_record(record: TurnRecord) -> None:
    assert decode(encode(record, OTHER_KEYS), KEYS) is None
    claimed = replace(OTHER_KEYS, id=KEYS.id)
    assert decode(encode(record, claimed), KEYS) is None


@pytest.mark.parametrize("sealed", [True, False])
def test_a_record_reveals_neither_the_key_nor_the_text(sealed: bool) -> None:
    text = "the hidden thought"

    raw = bytes(to_bytes(make_record(text, 3, 5, sealed=sealed)))

    assert text.encode() not in raw
    assert TEAM.encode() not in raw
    assert make_record("x", 1, 1, tenant="a")[16:] != make_record("x", 1, 1, tenant="b")[16:]


def test_the_same_text_is_sealed_differently_each_time() -> None:
    first, second = (to_bytes(make_record("thought", 1, 1, sealed=True)) for _ in range(2))

    equal = [one == other for one, other in zip(first[10:], second[10:], strict=True)]
    assert sum(equal) < len(equal) / 4


def test_a_text_too_long_to_carry_is_left_out() -> None:
    longest = encode(
        TurnRecord(bytes(16), bytes(16), bytes(32), 1, 1, 0, "x" * MAX_TEXT_BYTES), KEYS
    )
    longer = make_record("x" * (MAX_TEXT_BYTES + 1), 7, 9, sealed=True)

    assert len(longest) <= MAX_LENGTH
    found = decode(longest, KEYS)
    assert found is not None
    assert len(found.text or "") == MAX_TEXT_BYTES
    found = decode(longer, KEYS)
    assert found is not None
    assert (found.text, found.tokens, found.spent) == (None, 7, 9)
    assert secret_id("A" * (MAX_LENGTH + 1)) is None


def test_records_of_this_version_stay_readable() -> None:
    """Clients keep records for as long as their sessions, through updates of the server."""
    signed = (
        "AQEAEPZIhjenr5P9aNh_KreviZrxHAqTbDUAAQIDBAUGBwgJCgsMDQ4PBa2nI_91u3NSrAooVLrL9P74"
        "XCJvR1r0ZnuaOarnGRsAAAAAAAAADAAAAAAAAAAiAAABoiSZ-ACBgfUHaZDIPEgrosHXyr9285-3ulIv"
        "vKh4TXZsRx4hnw"
    )
    sealed = (
        "AQIAEPZIhjenr0-61e0GmYin3_7XfLFDO0PkXWOeFTe_64WhL8ZIKFC6N3sO0_XezSO7vDGLaakPNOTR"
        "HfI9DVP23lIYu9EdOtawv8LXDhb9czyHMWSuFU5xxp2vQF8C7TNgbmjOlqTIiGvu3yFJYonBrmGtHnWT"
        "0QhrNlqunWeSpdgVPOzC2r3NP67fMHGcTA"
    )

    record = TurnRecord(
        KEYS.tenant(TEAM), bytes(range(16)), KEYS.digest("thought"), 12, 34, 1_795_910_400_000
    )
    assert decode(signed, KEYS) == record
    assert decode(sealed, KEYS) == replace(record, text="thought")
