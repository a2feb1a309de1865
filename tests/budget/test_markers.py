import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import UNKNOWN_VOCABULARY, BudgetStateMachine, Markers, TokenBudget, matcher_of

ONE = Markers((1,), (2,), frozenset({3}))
TWO = Markers((1, 4), (2, 4), frozenset({3}))


@pytest.mark.parametrize(
    ("markers", "tokens", "inside"),
    [
        (ONE, [], False),
        (ONE, [0], False),
        (ONE, [1], True),
        (ONE, [0, 1, 0, 0], True),
        (ONE, [1, 0, 2], False),
        (ONE, [1, 0, 2, 0, 1, 0], True),
        (ONE, [1, 0, 3, 0], False),
        (ONE, [2, 1], True),
        (TWO, [1], False),
        (TWO, [4], False),
        (TWO, [1, 0, 4], False),
        (TWO, [0, 1, 4, 0], True),
        (TWO, [1, 4, 2], True),
        (TWO, [1, 4, 2, 4], False),
        (TWO, [1, 4, 4], True),
    ],
)
def test_inside_after(markers: Markers, tokens: list[int], inside: bool) -> None:
    assert matcher_of(markers, UNKNOWN_VOCABULARY).inside_after(tokens) is inside


@given(st.lists(st.integers(0, 4)), st.sampled_from([ONE, TWO]))
def test_inside_after_agrees_with_the_state_machine(tokens: list[int], markers: Markers) -> None:
    machine = BudgetStateMachine(TokenBudget(opened=False), markers)
    for token in tokens:
        if token in markers.eos:
            machine = BudgetStateMachine(TokenBudget(opened=False), markers)
        else:
            machine.advance(token)

    assert matcher_of(markers, UNKNOWN_VOCABULARY).inside_after(tokens) is machine.thinking
