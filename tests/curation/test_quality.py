"""The stage `quality`: a row of each fault, and rows that only look faulty."""

from typing import Any

import pytest
from pydantic import ValidationError

from proctor.curation.stages.quality import QualityOptions, follows
from tests.curation.factories import ANSWER, CONTEXT, QUESTION, TRACE, make_row

GERMAN = (
    "Anna hat 17 Äpfel und kauft 25 weitere auf dem Markt.\n"
    "Wir zählen die beiden zusammen, das ist nicht schwer.\nDas sind 17 + 25 = 42."
)

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"question": " "}, "no question"),
    ({"trace": ""}, "no trace"),
    ({"answer": "", "trace": ""}, "no trace"),
    ({"answer": ""}, "truncated trace"),
    ({"answer": "Error code: 429 - rate limit"}, "API error"),
    ({"answer": '{"error": {"message": "overloaded"}}'}, "API error"),
    ({"trace": "Internal Server Error"}, "API error"),
    ({"answer": "I'm sorry, but I can't help with that."}, "refusal"),
    ({"answer": "As an AI language model, I have no apples."}, "refusal"),
    ({"trace": TRACE.replace("apples", "apples\ufffd")}, "encoding damage"),
    ({"question": "It\u00e2\u20ac\u2122s about 17 apples and 25 more?"}, "encoding damage"),
    ({"question": f"{QUESTION}\x00"}, "encoding damage"),
    ({"answer": "</think> The answer is 42."}, "formatting fault"),
    ({"answer": "<|im_end|> The answer is 42."}, "formatting fault"),
    ({"trace": f"```python\n{TRACE}"}, "formatting fault"),
    ({"question": f"Page 12 of 40\n{QUESTION}"}, "formatting fault"),
    ({"question": f"Hello {{{{name}}}}. {QUESTION}"}, "formatting fault"),
    ({"question": f"As shown in the figure below, {QUESTION}"}, "image or figure"),
    ({"question": f"{QUESTION} ![apples](a.png)"}, "image or figure"),
    ({"question": "[asy] draw(A--B); [/asy] What is AB?"}, "image or figure"),
    ({"trace": GERMAN}, "other language"),
    ({"question": "\u5b89\u5a1c\u6709\u5341\u4e03\u4e2a\u82f9\u679c" * 4}, "other language"),
    ({"trace": f"{TRACE}\nAnd then we"}, "truncated trace"),
    ({"trace": TRACE.removesuffix(" = 42.") + " ="}, "truncated trace"),
    ({"trace": f"{TRACE}\nThis is what they have toget"}, "truncated trace"),
    ({"answer": "The answer is 42, because"}, "truncated answer"),
    ({"answer": "The answer is 43."}, "answer does not follow"),
    ({"trace": "Which day is it?\nIt is Monday.\nSo the answer is Monday.", "answer": "Friday",
      "reference": None}, "answer does not follow"),
    ({"reference": "41"}, "wrong answer"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), FAULTS)
def test_faults(changes: dict[str, Any], reason: str) -> None:
    dropped = QualityOptions(languages=("en",)).build(CONTEXT).judge(make_row(**changes))

    assert dropped is not None
    assert dropped.reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"question": "Why does my server say 'Internal Server Error', and what does 17 + 25 make?"},
        {"trace": "x = 17\ny = 25\nx + y = 42"},
        {"trace": "They add up.\nSo she has 17+25=42 apples"},
        {"question": r"With \text{{A}} = 17 and 25 in a ``` block, what is \text{{A}} + 25?"},
        {"trace": "Let me add them.\nThey have 17 + 25 = 42 apples"},
        {"question": "Draw the graph of y = 17 + 25 and find its value."},
        {
            "trace": TRACE
            + " That is caf\u00e9 arithmetic, with \u2264 50 apples \u2014 na\u00efve."
        },
        {"trace": TRACE + "\nThat checks out.", "reference": None},
        {"answer": r"\boxed{42}"},
        {"answer": "0.5", "trace": "We halve it.\nSo it is 1/2.", "reference": "0.5"},
        {"question": "Error 404: what does it mean, if 17 + 25 = 42 of them came in?"},
        {"answer": "42"},
        {"reference": "We add them: 17 + 25 = 42.\n#### 42"},
        {"reference": "A long explanation that states no final value of any kind at all."},
        {"answer": "Yes", "reference": None},
        {
            "trace": "It is the word 'the'.\nSo the answer is the.",
            "answer": "the",
            "reference": None,
        },
        {"question": QUESTION + " Spell a, e, i, o, u, y, a, e, o, i, y, o, e."},
    ],
)
def test_rows_that_only_look_faulty(changes: dict[str, Any]) -> None:
    assert QualityOptions(languages=("en",)).build(CONTEXT).judge(make_row(**changes)) is None


def test_asymptote_of_aime_stays() -> None:
    row = make_row(question=f"[asy] draw(A--B); [/asy] {QUESTION}", source="qfq/AIME_1983")

    assert QualityOptions().build(CONTEXT).judge(row) is None
    assert QualityOptions(asymptote_sources=()).build(CONTEXT).judge(row) is not None


def test_options_allow_what_they_name() -> None:
    german = make_row(trace=GERMAN)
    assert QualityOptions().build(CONTEXT).judge(german) is None
    assert QualityOptions(languages=("en", "de")).build(CONTEXT).judge(german) is None
    assert QualityOptions(trace=False).build(CONTEXT).judge(make_row(trace="")) is None
    assert QualityOptions(right_answers=False).build(CONTEXT).judge(make_row(reference="1")) is None
    late = make_row(trace=f"{TRACE}\nThat was step 3 of it.")
    assert QualityOptions().build(CONTEXT).judge(late) is not None
    assert QualityOptions(conclusion_lines=2).build(CONTEXT).judge(late) is None


def test_unknown_languages_are_named() -> None:
    with pytest.raises(ValidationError, match="'xx' is unknown; known: ar, cs"):
        QualityOptions(languages=("xx",))


@pytest.mark.parametrize(
    ("answer", "conclusion", "follows_from_it"),
    [
        (ANSWER, "So 42.", True),
        (ANSWER, "So 41.", False),
        (ANSWER, "So that is it.", None),
        ("It is 1,000.", "= 1000", True),
        ("It is 0.5.", "So it is 1/2.", None),
        ("It is 0.5.", "So 3/4 of it is 6, and the rest is 2.", False),
        ("7071, 7770, 9032", "That gives the answer: 7071, 7770, 9032.", True),
        ("Monday", "So the answer is Monday.", True),
        ("Monday", "So the answer is Friday.", False),
        ("Monday", "Everything adds up here, so we are done with it.", None),
        ("A long explanation of why nothing can be said about any of this.", "So 41.", None),
    ],
)
def test_an_answer_follows_from_the_last_line(
    answer: str, conclusion: str, follows_from_it: bool | None
) -> None:
    assert follows(answer, conclusion) is follows_from_it
