"""How much a request still generates."""

from hypothesis import given
from hypothesis import strategies as st

from proctor.server.engines.replicas.balancing.usage_estimates import (
    MAX_KEYS,
    UsageEstimates,
    bucket_of,
)


def test_an_unknown_budget_is_used_up() -> None:
    estimates = UsageEstimates()

    assert estimates.remaining("high", 1000) == 1000
    assert estimates.remaining("high", 1000, 400) == 600


def test_the_usual_use_is_learned_and_the_unusual_forgotten() -> None:
    estimates = UsageEstimates()
    for _ in range(300):
        estimates.learn("low", 10_000, 100)
    assert 100 <= estimates.remaining("low", 10_000) < 130

    for _ in range(300):
        estimates.learn("low", 10_000, 5000)
    assert 4900 < estimates.remaining("low", 10_000) <= 5000


def test_what_outlives_most_is_expected_to_go_on() -> None:
    estimates = UsageEstimates()
    for _ in range(50):
        for _ in range(9):
            estimates.learn("auto", 20_000, 100)
        estimates.learn("auto", 20_000, 10_000)

    assert estimates.remaining("auto", 20_000) < 2000
    assert 9000 < estimates.remaining("auto", 20_000, 500) <= 9900
    assert estimates.remaining("auto", 20_000, 15_000) == 5000


def test_long_histories_stay_finite() -> None:
    estimates = UsageEstimates()
    for _ in range(5000):
        estimates.learn("low", 100, 50)

    assert abs(estimates.remaining("low", 100) - 50) < 1


def test_budgets_are_bounded_in_number() -> None:
    estimates = UsageEstimates()
    estimates.learn("first", 1000, 10)
    for key in range(MAX_KEYS):
        estimates.learn(key, 1000, 10)

    assert estimates.remaining("first", 1000) == 1000
    assert estimates.remaining(MAX_KEYS - 1, 1000) < 1000


@given(
    st.lists(st.integers(0, 50_000), max_size=30),
    st.integers(0, 40_000),
    st.integers(0, 40_000),
)
def test_estimates_stay_within_the_limit(learned: list[int], limit: int, generated: int) -> None:
    estimates = UsageEstimates()
    for tokens in learned:
        estimates.learn("key", limit, tokens)

    assert 0 <= estimates.remaining("key", limit, generated) <= max(0, limit - generated)


@given(st.integers(0, 10**6))
def test_buckets_are_in_order(tokens: int) -> None:
    assert 0 <= bucket_of(tokens + 1) - bucket_of(tokens) <= 1
