"""Answers that mean the same are equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.config.thinking.early_exit import AnswerKind
from proctor.server.generation.early_exit.answers import normalized


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 42.", "42"),
        ("76*6=56", "56"),
        ("1,234,567 in all", "1234567"),
        ("-0.50", "-0.5"),
        ("007", "7"),
        ("-0", "0"),
        ("0.0", "0"),
        ("Between 3 and 12", "12"),
        ("none", None),
        ("", None),
    ],
)
def test_numbers(text: str, expected: str | None) -> None:
    assert normalized(text, AnswerKind.NUMBER) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(B)", "B"),
        ("The answer is C.", "C"),
        ("B, not A", "A"),
        ("I'd say D", "D"),
        ("ABBA", None),
        ("apple", None),
    ],
)
def test_choices(text: str, expected: str | None) -> None:
    assert normalized(text, AnswerKind.CHOICE) == expected


def test_texts() -> None:
    assert normalized("  The  Eiffel\nTower. ", AnswerKind.TEXT) == "the eiffel tower"
    assert normalized(" . ", AnswerKind.TEXT) is None


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "{:,}", "so {}", "= {}.", "{}.000"]))
def test_a_number_is_the_same_however_it_is_written(number: int, form: str) -> None:
    assert normalized(form.format(number), AnswerKind.NUMBER) == str(number)
