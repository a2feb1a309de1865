import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.router import LEVELS, Costs, decide

CERTAIN = [tuple(float(at == level) for at in range(4)) for level in range(4)]


@pytest.mark.parametrize("level", range(4))
def test_a_certain_level_is_chosen(level: int) -> None:
    assert decide(CERTAIN[level]) == LEVELS[level]


def test_a_small_chance_of_high_outweighs_a_likely_none() -> None:
    assert decide((0.6, 0.1, 0.0, 0.3)) != "none"
    assert decide((0.3, 0.1, 0.0, 0.6)) != "none"
    # The reverse costs less: an easy prompt may be sent to a higher tier.
    assert decide((0.3, 0.0, 0.1, 0.6)) == "high" or decide((0.3, 0.0, 0.1, 0.6)) == "medium"


def test_of_equal_costs_less_thinking_is_chosen() -> None:
    flat = Costs((0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0))
    assert decide((0.25, 0.25, 0.25, 0.25), flat) == "none"


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda found: sum(found) > 0.1))
def test_no_level_is_cheaper_than_the_one_chosen(weights: list[float]) -> None:
    chances = [weight / sum(weights) for weight in weights]
    rows = Costs().rows
    expected = [sum(chances[i] * rows[i][j] for i in range(4)) for j in range(4)]
    assert expected[LEVELS.index(decide(chances))] == pytest.approx(min(expected))


@pytest.mark.parametrize(
    "row", [(1.0, 1.0, 1.0, 1.0), (0.0, -1.0, 1.0, 1.0), (0.0, float("nan"), 1, 1)]
)
def test_bad_costs_are_refused_by_name(row: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"costs\.none"):
        Costs(none=row)


def test_a_wrong_number_of_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match=r"zip|shorter|longer"):
        decide((0.5, 0.5))
