import pytest

from evaluation.scorers import BadScorer, load_scorer


@pytest.mark.parametrize(
    ("scorer", "answer", "right", "score"),
    [
        ("exact", " 35\n", "35", 1),
        ("exact", "it is 35", "35", 0),
        ("numeric", "first 12, so it is 1,234.50.", "1234.5", 1),
        ("numeric", "The answer is 07.", "7", 1),
        ("numeric", "-3", "3", 0),
        ("numeric", "none", "3", 0),
        ("numeric", "$2,880,000 in all", "2880000", 1),
        ("numeric", "1200", "$1,200", 1),
        ("choice", "A is wrong. The answer is (C).", "c", 1),
        ("choice", "Both are", "B", 0),
        ("regex", "so 35 it is", r"\b35\b", 1),
        ("regex", "so 135", r"\b35\b", 0),
        ("operator:eq", "a", "a", 1),
    ],
)
def test_a_score(scorer: str, answer: str, right: str, score: float) -> None:
    assert load_scorer(scorer)(answer, right) == score


@pytest.mark.parametrize("name", ["perfect", "no.such.module:f", "operator:nothing"])
def test_no_such_scorer(name: str) -> None:
    with pytest.raises(BadScorer):
        load_scorer(name)


@pytest.mark.parametrize("right", [r"\frac{1}{4}", r"\sqrt{4}", "x = 4", "1, 4", ""])
def test_what_is_no_plain_number_cannot_be_scored_as_one(right: str) -> None:
    with pytest.raises(ValueError, match="plain number"):
        load_scorer("numeric")("I guess 4", right)
