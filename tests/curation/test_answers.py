"""Final answers in texts, and whether two are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.curation import answers
from proctor.curation.answers import final_answer, last_boxed, same_answer
from proctor.curation.stages.quality import follows


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"First \boxed{1}, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2", "1"),
        ("We add.\n#### 42", "42"),
        ("The answer is 41. Wait, the answer is 42.", "42"),
        ("**Answer:** 42", "42"),
        ("Tuesday", "Tuesday"),
        ("This only explains at length what could be done about it.", None),
        ("", None),
    ],
)
def test_final_answers(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("The answer is 42 apples.", "42", True),
        ("42.0", "42", True),
        ("1,000", "1000", True),
        ("It is 41.", "42", False),
        ("So 17 and 25, which make 42", "42", True),
        ("2, 4, 8", "2, 4, 8", True),
        ("2, 8, 4", "2, 4, 8", False),
        ("It is Tuesday.", "Tuesday", True),
        ("Monday", "Tuesday", False),
        ("no", "yes", False),
        ("0.75", "3/4", None),
        ("42", "A proof of some length, which states no value whatsoever.", None),
        ("A long text that never comes to the point that it should make.", "Tuesday", None),
    ],
)
def test_same_answers(answer: str, reference: str, same: bool | None) -> None:
    assert same_answer(answer, reference) is same


def test_latex_is_compared_by_value() -> None:
    pytest.importorskip("math_verify", reason="the extra 'eval' is not installed")
    assert same_answer(r"It is \boxed{\frac{1}{2}}.", r"$\dfrac{2}{4}$") is True
    assert same_answer(r"It is \boxed{\frac{1}{3}}.", r"$\dfrac{2}{4}$") is False
    assert follows(r"\boxed{\frac{2}{4}}", r"So it is $\boxed{\frac{1}{2}}$.") is True
    assert follows(r"\boxed{\frac{2}{3}}", r"So it is $\boxed{\frac{1}{2}}$.") is False


def test_latex_without_its_library_is_compared_by_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_math", lambda: None)
    assert same_answer(r"\boxed{\frac{1}{2}}", r"\frac{1}{2}") is True
    assert same_answer(r"\boxed{\frac{2}{4}}", r"\frac{1}{2}") is None


@given(st.text())
def test_every_text_is_the_same_as_itself_or_states_nothing(text: str) -> None:
    if "\\" in text or "^" in text or "{" in text or "}" in text:
        return
    assert same_answer(text, text) in (True, None)


@given(st.text(alphabet="ab{}1 "), st.text())
def test_boxes_are_balanced(content: str, before: str) -> None:
    found = last_boxed(f"{before}\\boxed{{{content}}}")
    assert found is None or found.count("{") == found.count("}")
