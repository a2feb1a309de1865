"""Requested budgets become budgets in tokens, or are refused with the field's name."""

import json
import pickle
from typing import Any

import pytest
from hypothesis import given

from proctor.budget import (
    BudgetError,
    Landing,
    Markers,
    OnLoop,
    ThinkingBudget,
    TokenBudget,
    answer_reserve,
    thinking_room,
    tokenize,
)
from proctor.budget.budgets import NUDGE_TEXT
from tests.budget.strategies import budgets, markers

MARKERS = Markers(start=(60,), end=(62,), eos=frozenset({0}))


def encode(text: str) -> list[int]:
    return list(text.encode())


def tokenized(budget: ThinkingBudget, room: int = 100) -> TokenBudget:
    return tokenize(budget, encode=encode, markers=MARKERS, opened=True, room=room)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_tokens": -1}, "min_thinking_tokens"),
        ({"max_tokens": -1}, "max_thinking_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_thinking_tokens"),
        ({"continuations": -1}, "thinking.continuations"),
        ({"continuations": 9}, "thinking.continuations"),
        ({"continuations": 1, "max_tokens": 0}, "thinking.continuations"),
        ({"continuation_texts": ()}, "thinking.continuation_text"),
        ({"continuation_texts": ("Wait", "")}, "thinking.continuation_text"),
        ({"continuation_texts": ("Wait",) * 17}, "thinking.continuation_text"),
    ],
)
def test_an_invalid_budget_is_refused_by_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BudgetError) as refused:
        ThinkingBudget(**fields)
    assert refused.value.param == param
    assert param.split(".")[-1] in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"minimum": -1}, "thinking"),
        ({"continuations": -1}, "thinking"),
        ({"minimum": 3, "maximum": 2, "continuation_ids": ((1,),)}, "min_thinking_tokens"),
        ({"minimum": 3}, "thinking.continuation_text"),
        ({"continuation_ids": ((),)}, "thinking.continuation_text"),
        ({"wrap_up_ids": (1,)}, "thinking.wrap_up_text"),
        ({"wrap_up_ids": (1,), "maximum": 1}, "thinking.wrap_up_text"),
    ],
)
def test_an_invalid_token_budget_is_refused_by_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BudgetError) as refused:
        TokenBudget(**fields)
    assert refused.value.param == param


def test_texts_become_tokens() -> None:
    budget = tokenized(ThinkingBudget(max_tokens=9, continuation_texts=("a", "bc")))
    assert budget.continuation_ids == ((97,), (98, 99))
    assert budget.maximum == 9
    assert not budget.capped_by_room


@pytest.mark.parametrize("text", ["<", ">", "\0", "x" * 65])
@pytest.mark.parametrize("field", ["continuation_text", "wrap_up_text"])
def test_a_text_that_has_a_marker_or_is_too_long_is_refused(field: str, text: str) -> None:
    texts = {"continuation_texts": (text,)} if field == "continuation_text" else {field: text}
    with pytest.raises(BudgetError) as refused:
        tokenized(ThinkingBudget(**texts))
    assert refused.value.param == f"thinking.{field}"


def test_a_maximum_is_clamped_to_the_room() -> None:
    assert tokenized(ThinkingBudget(max_tokens=500)).maximum == 100
    unlimited = tokenized(ThinkingBudget())
    assert unlimited.maximum == 100
    assert unlimited.capped_by_room


def test_a_minimum_over_the_room_is_refused() -> None:
    with pytest.raises(BudgetError, match="must not exceed the 100 thinking tokens") as refused:
        tokenized(ThinkingBudget(min_tokens=101))
    assert refused.value.param == "min_thinking_tokens"


def test_a_wrap_up_that_leaves_no_thinking_is_left_out() -> None:
    assert tokenized(ThinkingBudget(max_tokens=3, wrap_up_text="abc")).wrap_up_ids == ()
    assert tokenized(ThinkingBudget(max_tokens=4, wrap_up_text="abc")).wrap_up_ids == (97, 98, 99)


def test_without_room_there_are_no_continuations() -> None:
    assert tokenized(ThinkingBudget(continuations=2), room=0).continuations == 0


@pytest.mark.parametrize(
    ("max_tokens", "reserve"), [(0, 0), (8, 8), (40, 16), (400, 100), (2048, 512), (10**6, 512)]
)
def test_the_answer_reserve_is_a_quarter_within_bounds(max_tokens: int, reserve: int) -> None:
    assert answer_reserve(max_tokens) == reserve


def test_thinking_room_excludes_the_reserve_and_the_markers() -> None:
    assert thinking_room(100, 25, MARKERS, opened=True) == 74
    assert thinking_room(100, 25, MARKERS, opened=False) == 73
    assert thinking_room(10, 10, MARKERS, opened=True) == 0


@given(budgets())
def test_a_token_budget_survives_json(budget: TokenBudget) -> None:
    assert TokenBudget.from_wire(json.loads(json.dumps(budget.to_wire()))) == budget


@given(markers())
def test_markers_survive_json(model_markers: Markers) -> None:
    assert Markers.from_wire(json.loads(json.dumps(model_markers.to_wire()))) == model_markers


@pytest.mark.parametrize("wire", [{}, {"minimum": 1}, {"continuation_ids": 3, "wrap_up_ids": []}])
def test_a_malformed_token_budget_is_refused(wire: dict[str, Any]) -> None:
    with pytest.raises(BudgetError, match="malformed token budget"):
        TokenBudget.from_wire(wire)


@pytest.mark.parametrize(
    ("start", "end", "eos"),
    [((), (1,), {2}), ((1,), (), {2}), ((1,), (2,), {2}), ((1,), (3, 4, 3), {2})],
)
def test_invalid_markers_are_refused(
    start: tuple[int, ...], end: tuple[int, ...], eos: set[int]
) -> None:
    with pytest.raises(ValueError, match="marker"):
        Markers(start, end, frozenset(eos))


def test_a_budget_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BudgetError("max_thinking_tokens", "too many")))
    assert (error.param, str(error)) == ("max_thinking_tokens", "too many")


def test_a_maximum_of_zero_disables_thinking() -> None:
    assert ThinkingBudget(max_tokens=0).disabled
    assert not ThinkingBudget().disabled


def test_nudge_tokens_are_required_for_nudging_and_refused_otherwise() -> None:
    nudged = tokenized(ThinkingBudget(on_loop=OnLoop.NUDGE))
    assert nudged.nudge_ids == tuple(NUDGE_TEXT.encode())
    assert tokenized(ThinkingBudget()).nudge_ids == ()
    with pytest.raises(BudgetError, match="nudge"):
        TokenBudget(on_loop=OnLoop.NUDGE)
    with pytest.raises(BudgetError, match="nudge"):
        TokenBudget(nudge_ids=(1,))


def test_a_landing_is_an_eighth_of_the_maximum() -> None:
    assert tokenized(ThinkingBudget(max_tokens=80)).landing == 10
    assert tokenized(ThinkingBudget(max_tokens=10**6), room=10**6).landing == 64
    assert tokenized(ThinkingBudget(max_tokens=80, landing=Landing.HARD)).landing == 0


def test_a_continuation_that_would_complete_the_end_marker_is_refused() -> None:
    split = Markers(start=(60,), end=(62, 63), eos=frozenset({0}))
    with pytest.raises(BudgetError, match="could complete the end marker"):
        tokenize(
            ThinkingBudget(continuation_texts=("?no",)),
            encode=encode,
            markers=split,
            opened=True,
            room=50,
        )


def test_a_block_is_opened_and_closed_if_the_model_may_think_and_markers_are_text() -> None:
    text_markers = Markers(tuple(b"<t>"), tuple(b"</t>"), frozenset({0}))
    for model_markers, may_think, maximum, opens in (
        (text_markers, True, 0, True),
        (text_markers, True, 5, False),
        (text_markers, False, 0, False),
        (MARKERS, True, 0, False),
    ):
        budget = tokenize(
            ThinkingBudget(max_tokens=maximum, continuation_texts=("Wait",)),
            encode=encode,
            markers=model_markers,
            opened=False,
            room=100,
            may_think=may_think,
        )
        assert budget.begins_with_marker is opens
