"""The stage `deduplication`."""

import pytest

from proctor.curation.stages.deduplication import Deduplication, DeduplicationOptions
from tests.curation.factories import CONTEXT, QUESTION, make_row


def make_stage(**options: float) -> Deduplication:
    return DeduplicationOptions(**options).build(CONTEXT)  # type: ignore[arg-type]


def test_exact_duplicates_name_the_first() -> None:
    stage = make_stage()
    questions = (QUESTION, QUESTION.upper(), f"  {QUESTION}!!", QUESTION.replace(" ", "\u00a0"))
    found = [stage.judge(make_row(id=str(at), question=text)) for at, text in enumerate(questions)]

    assert found[0] is None
    assert [each and each.reason for each in found[1:]] == ["exact duplicate"] * 3
    assert {each.detail for each in found if each} == {"of 0"}


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (f"Please answer this: {QUESTION}", "near duplicate"),
        (f"{QUESTION} Explain your answer.", "near duplicate"),
        (QUESTION.replace("17", "18"), None),
        ("Ben has 17 pens and loses 25 of them at school. What is left?", None),
    ],
)
def test_near_duplicates(question: str, reason: str | None) -> None:
    stage = make_stage()
    assert stage.judge(make_row(id="first")) is None

    found = stage.judge(make_row(id="second", question=question))

    assert (found and found.reason) == reason
    assert found is None or found.detail.startswith("of first (similarity 0.")


def test_other_numbers_are_near_duplicates_on_request() -> None:
    stage = make_stage(same_numbers=False, ngram=1)
    stage.judge(make_row(id="first"))

    assert stage.judge(make_row(id="second", question=QUESTION.replace("17", "18"))) is not None


def test_a_threshold_of_one_looks_for_exact_duplicates_only() -> None:
    stage = make_stage(threshold=1)
    stage.judge(make_row(id="first"))

    assert stage.judge(make_row(id="second", question=f"Please: {QUESTION}")) is None


def test_the_most_similar_of_several_is_named() -> None:
    stage = make_stage(threshold=0.5)
    words = [f"word{letter}" for letter in "abcdefghijklmnopqrst"]
    for name, part in (("far", words[:14]), ("close", words[5:])):
        assert stage.judge(make_row(id=name, question=" ".join(part))) is None

    found = stage.judge(make_row(id="third", question=" ".join(words[2:])))

    assert found is not None
    assert found.detail.startswith("of close ")
