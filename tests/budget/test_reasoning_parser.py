"""The reasoning parser, by which vLLM's structured outputs detect the end of thinking."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import Markers

reasoning = pytest.importorskip(
    "proctor.budget.processors.structured_outputs.reasoning_parser", reason="no vLLM"
)

END = (7, 8, 9)
tokens = st.lists(st.integers(5, 10), max_size=30)


def parser(end: tuple[int, ...] = END) -> Any:
    markers = Markers(start=(6,), end=end, eos=frozenset({1}))
    return reasoning.MarkerReasoningParser(object(), **reasoning.parser_arguments(markers))


def test_the_parser_is_registered_with_vllm() -> None:
    found = reasoning.ReasoningParserManager.get_reasoning_parser(reasoning.NAME)

    assert found is reasoning.MarkerReasoningParser


@given(before=tokens, fresh=tokens.filter(bool))
def test_a_marker_that_ends_among_the_last_tokens_is_found(
    before: list[int], fresh: list[int]
) -> None:
    whole = before + fresh
    ends = [at + len(END) for at in range(len(whole)) if tuple(whole[at : at + len(END)]) == END]

    assert parser().is_reasoning_end(whole) == (len(whole) in ends)
    found = parser().is_reasoning_end_streaming(whole, fresh)
    assert found == any(end > len(before) for end in ends)


@given(fresh=tokens)
def test_a_marker_of_one_token(fresh: list[int]) -> None:
    assert parser((9,)).is_reasoning_end_streaming(fresh, fresh) == (9 in fresh)
