"""The stage `decontamination`, and its n-grams."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.stages.decontamination import DecontaminationOptions
from proctor.curation.text.ngrams import EvaluationIndex, normalized_math
from proctor.curation.tokens import Words
from tests.curation.factories import make_row, write_lines

WORDS = [f"word{letter}" for letter in "abcdefghijklmnopqrst"]
LONG = " ".join(WORDS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LONG, True),
        (f"Solve: {LONG.upper()} now", True),
        ("  ".join(WORDS[3:16]), True),
        (" ".join(WORDS[3:15]), False),
        (" ".join(reversed(WORDS)), False),
    ],
)
def test_thirteen_words_in_a_row_match(text: str, found: bool) -> None:
    assert (EvaluationIndex([("eval row 1", LONG)]).find(text) is not None) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What is 3 + 4?", True),
        ("Tell me: What is 3 + 4?", False),
        ("Viktor collects 25 litres of rain. Give centilitres.", True),
        ("Solve: Viktor collects 25 litres of rain. Give centilitres. Thanks", True),
    ],
)
def test_short_questions_match_as_a_whole(text: str, found: bool) -> None:
    questions = ("What is 3 + 4?", "Viktor collects 25 litres of rain. Give centilitres.")
    index = EvaluationIndex([(f"row {at}", each) for at, each in enumerate(questions)])

    assert (index.find(text) is not None) == found


def test_the_second_pass_sees_through_notation() -> None:
    index = EvaluationIndex(
        [("row 1", r"Let $x$ be $\dfrac{1{,}000}{2.50} \times y$ where $y \le 3.0$ holds. Find x")]
    )
    name, match = index.find(
        r"let \(x\) be \frac {1000} {2.5} · y  where y ≤ 3 holds, find x then"
    ) or ("", None)

    assert name == "normalized"
    assert match is not None
    assert "1000 2.5 * y" in match.text


@given(st.lists(st.sampled_from(["a", "b", "1", "2.50", "$", r"\frac", "{", "}"]), max_size=40))
def test_every_question_contaminates_itself(parts: list[str]) -> None:
    question = " ".join(parts)
    found = EvaluationIndex([("row 1", question)]).find(f"{question} ")
    assert (found is not None) == bool(parts)


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalized_math(text)
    assert normalized_math(" ".join(once)) == once


def test_matches_are_shown(tmp_path: Path) -> None:
    write_lines(tmp_path / "aime.jsonl", [{"problem": "An easier one"}, {"problem": LONG}])
    options = DecontaminationOptions(against=(Path("aime.jsonl"),))

    dropped = options.build(Context(tmp_path, Words(), 0)).judge(make_row(question=LONG))

    assert dropped is not None
    assert dropped.reason == "in an evaluation"
    assert dropped.detail == f"aime.jsonl row 2: {' '.join(WORDS[:13])}"
    assert options.files() == (Path("aime.jsonl"),)


@pytest.mark.parametrize("record", ["{broken", {"text": ""}, {"solution": "42"}])
def test_an_evaluation_that_cannot_be_read_is_an_error(record: object, tmp_path: Path) -> None:
    write_lines(tmp_path / "eval.jsonl", [record])
    options = DecontaminationOptions(against=(Path("eval.jsonl"),))

    with pytest.raises(CurationError, match=r"eval.jsonl, row 1: "):
        options.build(Context(tmp_path, Words(), 0))
