"""Traits and incomplete bytes of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget.vocabulary import ENDS, ENDS_AFTER_NO_DIGIT, IS_DIGIT, Vocabulary

BYTES = Vocabulary.from_bytes([bytes([byte]) for byte in range(256)])


@given(st.text(max_size=20))
def test_incomplete_bytes_are_the_rest_of_a_character(text: str) -> None:
    for character in text:
        incomplete_bytes = 0
        for position, byte in enumerate(encoded := character.encode(errors="replace"), 1):
            incomplete_bytes = BYTES.incomplete_bytes_after(incomplete_bytes, byte)
            assert incomplete_bytes == len(encoded) - position


@given(st.binary(max_size=12), st.integers(0, 3))
def test_a_token_of_many_bytes_equals_its_bytes_one_by_one(
    token: bytes, incomplete_bytes: int
) -> None:
    singles = [bytes([byte]) for byte in range(256)]
    vocabulary = Vocabulary.from_bytes([*singles, token])
    one_by_one = incomplete_bytes
    for byte in token:
        one_by_one = BYTES.incomplete_bytes_after(one_by_one, byte)
    assert vocabulary.incomplete_bytes_after(incomplete_bytes, 256) == one_by_one


def test_a_continuation_byte_can_always_reduce_the_incomplete_bytes() -> None:
    for incomplete_bytes in (1, 2, 3):
        assert (
            min(BYTES.incomplete_bytes_after(incomplete_bytes, byte) for byte in range(0x80, 0xC0))
            == incomplete_bytes - 1
        )


def test_without_single_byte_tokens_no_bytes_are_incomplete() -> None:
    vocabulary = Vocabulary.from_bytes([b"a", "é".encode()[:1], "é".encode()])
    assert [vocabulary.incomplete_bytes_after(0, token) for token in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "traits"),
    [
        ("so", 0),
        (".", ENDS_AFTER_NO_DIGIT),
        (". ", ENDS),
        ("end.", ENDS),
        ("3.", 0),
        ("3. ", ENDS),
        ("7", IS_DIGIT),
        ("x7", IS_DIGIT),
        ("?", ENDS),
        ('!"', ENDS),
        (".)", ENDS),
        ("\n", ENDS),
        (",\n\n", ENDS),
        ("\n  ", ENDS),
        ("\n-", 0),
        ("。", ENDS),
        ("", 0),
    ],
)
def test_traits_of_tokens(text: str, traits: int) -> None:
    assert Vocabulary.from_bytes([text.encode()]).traits_of(0) == traits


def test_an_id_without_text_has_no_traits() -> None:
    assert BYTES.traits_of(999) == 0
    assert BYTES.incomplete_bytes_after(2, 999) == 0


@given(st.sampled_from("…。！？؟।"), st.integers(1, 3), st.booleans())  # noqa: RUF001
def test_a_terminator_split_over_tokens_is_recognized(mark: str, cut: int, joined: bool) -> None:
    encoded = mark.encode()
    parts = [b"so", *(bytes([byte]) for byte in encoded)]
    if joined:
        parts = [b"so" + encoded[:cut], encoded[cut:] + b" "]
    vocabulary = Vocabulary.from_bytes(parts)
    partial, traits = 0, 0
    for token, part in enumerate(parts):
        if part.strip():
            traits = vocabulary.traits_of(token, partial)
            partial = vocabulary.partial_after(partial, token)
    assert traits == ENDS or (joined and cut >= len(encoded))


def test_the_rest_of_another_character_ends_no_sentence() -> None:
    vocabulary = Vocabulary.from_bytes([b"\xe2", b"\x80", b"\xa6", b"\x9c"])
    begun = vocabulary.partial_after(vocabulary.partial_after(0, 0), 1)
    assert vocabulary.traits_of(2, begun) == ENDS
    assert vocabulary.traits_of(3, begun) == 0
    assert vocabulary.traits_of(2, 0) == 0
