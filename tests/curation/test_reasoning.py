"""The stage `reasoning`: a trace of each fault, and traces that only look faulty."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget.loops import LoopDetector
from proctor.curation.stages.reasoning import ReasoningOptions
from proctor.curation.text import traces
from proctor.curation.tokens import Words
from tests.curation.factories import CONTEXT, QUESTION, TRACE, make_row

EMPTY = "Wait, let me check that again. Yes, that is right. Hold on. Let me double check. Right."
USEFUL = (
    "Wait, 17 is not what she buys. Actually she buys 25, as the receipt shows. "
    "Hold on, 17 + 25 is 42 by counting up from 25."
)

FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"trace": "It is 42."}, {}, "short trace"),
    ({}, {"max_tokens": 5}, "long trace"),
    ({"trace": f"{QUESTION} Let me think about this carefully, step by step."}, {}, "filler"),
    ({"trace": f"The answer is 42.\n{TRACE}"}, {}, "answer given away"),
    ({"trace": f"Okay. Given that the answer is 42, we show it.\n{TRACE}\nYes."}, {},
     "answer given away"),
    ({"trace": TRACE + "\nWait, what if the market is closed today." * 40}, {}, "loop"),
    ({"trace": f"{TRACE} {'She has many apples and he has none at all now. ' * 5}"}, {},
     "repetition"),
    ({"trace": f"{TRACE} {EMPTY}"}, {}, "empty self-correction"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "options", "reason"), FAULTS)
def test_faults(changes: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    dropped = ReasoningOptions(**options).build(CONTEXT).judge(make_row(**changes))

    assert dropped is not None
    assert dropped.reason == reason


@pytest.mark.parametrize(
    "trace",
    [
        TRACE,
        f"{TRACE}\n{USEFUL}",
        f"{TRACE} Wait, let me check that again. Yes.",
        "The answer is 42.",
        "First the answer is unclear.\n" + TRACE,
    ],
)
def test_traces_that_only_look_faulty(trace: str) -> None:
    assert ReasoningOptions(min_tokens=1).build(CONTEXT).judge(make_row(trace=trace)) is None


def test_length_against_difficulty() -> None:
    options = ReasoningOptions(
        difficulty_field="extra.level",
        min_tokens_by_difficulty={"5": 100},
        max_tokens_by_difficulty={"1": 10},
    )
    found = {
        level: options.build(CONTEXT).judge(make_row(metadata={"extra": {"level": level}}))
        for level in (1, 3, 5)
    }
    assert {level: each and each.reason for level, each in found.items()} == {
        1: "long for its difficulty",
        3: None,
        5: "short for its difficulty",
    }


def test_the_servers_own_guard_finds_loops() -> None:
    """The stage fires exactly where the detector of the budget does, on words as tokens."""
    text = TRACE + " Wait, no." * 60
    ids, weights = Words().encode(text)
    detector = LoopDetector(weights)
    fired = [detector.advance(token) for token in ids]

    assert traces.loop_end(ids, weights) == fired.index(True) + 1


def test_rows_of_a_table_are_no_loop() -> None:
    table = "\n".join(f"| {at} | {at * 7} |" for at in range(30))
    assert traces.loop_end(*Words().encode(table)) is None


@given(st.text(max_size=200))
def test_words_are_numbered_by_text(text: str) -> None:
    ids, weights = Words().encode(text)
    assert len(weights) == len({*ids})
    assert {*ids} == {*range(len(weights))}
    assert Words().encode(text) == (ids, weights)


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=60), st.integers(1, 9))
def test_repeated_shares(words: list[str], length: int) -> None:
    share = traces.repeated_share(" ".join(words), length)
    assert 0 <= share < 1
    if len(words) > length and len({*words}) == 1:
        assert share > 0


@given(st.lists(st.sampled_from(["Wait, 3.", "Hold on.", "No", "So 4 it is."]), max_size=8))
def test_each_cue_begins_a_correction(parts: list[str]) -> None:
    found = list(traces.corrections(" ".join(parts)))
    assert len(found) == sum(part.startswith(("Wait", "Hold")) for part in parts)
