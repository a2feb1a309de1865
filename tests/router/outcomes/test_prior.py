import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proctor.router import LEVELS, Costs, decide
from proctor.router.outcomes.frontier import cheapest
from proctor.router.outcomes.prior import Prior

cost = st.floats(0.0, 8.0)
PROBABILITIES = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4)


@st.composite
def matrices(draw: st.DrawFn) -> Costs:
    def row(level: int) -> tuple[float, float, float, float]:
        none, low, medium, high = (draw(cost) if sent != level else 0.0 for sent in range(4))
        return none, low, medium, high

    return Costs(row(0), row(1), row(2), row(3))


@given(st.just(Costs()) | matrices(), PROBABILITIES)
def test_choosing_by_the_prior_is_choosing_by_the_costs(costs: Costs, weights: list[float]) -> None:
    levels = np.array(weights) / sum(weights)
    prior = Prior.of(costs)
    regrets = np.sort(levels @ np.array(costs.rows))
    assume(regrets[1] - regrets[0] > 1e-6)  # no tie

    right, tokens = (levels @ prior.right)[None, :], (levels @ prior.tokens)[None, :]

    assert LEVELS[cheapest(right, tokens, prior.error_cost)[0]] == decide(levels.tolist(), costs)


@given(matrices())
def test_the_prior_holds_probabilities(costs: Costs) -> None:
    right = Prior.of(costs).right
    assert ((right > 0.0) & (right < 1.0)).all()


def test_by_the_shipped_costs_more_thinking_is_never_less_right() -> None:
    prior = Prior.of()
    assert (np.diff(prior.right, axis=1) >= 0.0).all()
    assert (np.diff(prior.tokens, axis=1) > 0.0).all()
    assert prior.right[3, 0] == pytest.approx(0.1)
