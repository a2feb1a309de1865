from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.auth.rate_limits import KeyUsage, WorstCase, check
from proctor.server.config.access import KeyLimits
from proctor.server.errors import QuotaExceeded, RateLimited
from proctor.server.nanos import to_nanos

NOW = datetime(2026, 11, 30, 23, 59, 30, tzinfo=UTC)
NOTHING = KeyUsage(0, 0, None, 0, 0)
BILLION = 10**9


def test_a_key_without_limits_gets_no_headers() -> None:
    assert check(KeyLimits(), NOTHING, WorstCase(10**9, 0), NOW) == {}


def test_the_headers_are_those_of_openai() -> None:
    limits = KeyLimits(requests_per_minute=3, tokens_per_minute=100)
    use = KeyUsage(1, 20, NOW - timedelta(seconds=45), 0, 0)

    assert check(limits, use, WorstCase(30, 0), NOW) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "15.000s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "15.000s",
    }


def test_requests_per_minute_are_limited() -> None:
    limits = KeyLimits(requests_per_minute=3)
    use = KeyUsage(3, 20, NOW - timedelta(seconds=44.5), 0, 0)

    with pytest.raises(RateLimited, match=r"3 requests per minute\. Try again in 16 s") as caught:
        check(limits, use, WorstCase(1, 0), NOW)

    assert caught.value.headers["retry-after"] == "16"
    assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("had", "wanted", "passes"),
    [(0, 100, True), (0, 101, False), (60, 40, True), (60, 41, False), (120, 1, False)],
)
def test_tokens_per_minute_are_limited(had: int, wanted: int, passes: bool) -> None:
    limits = KeyLimits(tokens_per_minute=100)
    use = KeyUsage(1, had, NOW, 0, 0)

    if passes:
        assert check(limits, use, WorstCase(wanted, 0), NOW)
        return
    with pytest.raises(RateLimited) as caught:
        check(limits, use, WorstCase(wanted, 0), NOW)
    # A request that is larger than the whole limit cannot succeed later.
    assert ("retry-after" in caught.value.headers) is (wanted <= 100)
    assert ("x-should-retry" in caught.value.headers) is (wanted > 100)


@pytest.mark.parametrize(
    ("limits", "wait"),
    [({"per_day": "0.5"}, 30), ({"per_month": "0.5"}, 30)],
)
def test_quotas_reset_at_midnight(limits: dict[str, str], wait: int) -> None:
    half = BILLION // 2
    use = KeyUsage(1, 20, NOW, half - 10, half - 10)

    assert check(KeyLimits(**limits), use, WorstCase(5, 10), NOW) == {}
    with pytest.raises(QuotaExceeded, match=r"0\.000000011 USD, .* 0\.000000010 USD of") as caught:
        check(KeyLimits(**limits), use, WorstCase(5, 11), NOW)

    assert caught.value.code == "insufficient_quota"
    assert caught.value.headers["retry-after"] == str(wait)


@pytest.mark.parametrize("period", ["day", "month"])
def test_waiting_does_not_help_a_request_that_costs_more_than_the_whole_limit(period: str) -> None:
    limits = KeyLimits.model_validate({f"per_{period}": "0.002"})
    want = WorstCase(5, BILLION, currency="EUR")
    with pytest.raises(QuotaExceeded) as caught:
        check(limits, NOTHING, want, NOW)

    assert str(caught.value) == (
        "Request too expensive: it may cost 1.000000000 EUR, and its API key is limited to "
        f"0.002 EUR per {period}. Reduce max_tokens, or use a key with a higher limit."
    )
    assert caught.value.headers == {"x-should-retry": "false"}


@given(
    st.tuples(*[st.integers(1, 5)] * 2),
    st.tuples(*[st.integers(0, 5)] * 2),
    st.tuples(*[st.integers(0, 2)] * 2),
    st.integers(0, 6),
)
def test_a_retry_after_the_time_given_succeeds(
    limits: tuple[int, int], spent: tuple[int, int], held: tuple[int, int], nanos: int
) -> None:
    day, month = sorted(limits)
    key = KeyLimits(per_day=Decimal(day) / BILLION, per_month=Decimal(month) / BILLION)
    used = KeyUsage(0, 0, None, spent[0] + held[0], sum(spent) + held[0], held[0], held[0])
    begun = datetime(2026, 11, 29, 12, tzinfo=UTC)
    try:
        check(key, used, WorstCase(1, nanos), begun)
    except QuotaExceeded as refused:
        if "retry-after" not in refused.headers:
            assert nanos > day
            return
        later = begun + timedelta(seconds=int(refused.headers["retry-after"]))
        of_month = 0 if later.month != begun.month else used.month - used.held_of_month
        check(key, KeyUsage(0, 0, None, 0, of_month), WorstCase(1, nanos), later)
    except RateLimited:
        after = KeyUsage(0, 0, None, used.day - held[0], used.month - held[0])
        check(key, after, WorstCase(1, nanos), begun)


def test_monthly_quotas_reset_after_the_last_day_of_the_month() -> None:
    begun = datetime(2026, 12, 31, 12, tzinfo=UTC)
    with pytest.raises(QuotaExceeded) as caught:
        check(
            KeyLimits(per_month=Decimal(1)),
            KeyUsage(0, 0, None, 0, BILLION),
            WorstCase(1, 1),
            begun,
        )

    assert caught.value.headers["retry-after"] == str(12 * 3600)


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=40),
)
def test_admitted_requests_stay_within_the_limits(most: int, wants: list[tuple[int, int]]) -> None:
    limits = KeyLimits(
        requests_per_minute=most,
        tokens_per_minute=4 * most,
        per_day=Decimal(3 * most) / BILLION,
        per_month=Decimal(3 * most) / BILLION,
    )
    use = NOTHING
    for tokens, nanos in wants:
        after = KeyUsage(
            use.requests + 1, use.tokens + tokens, NOW, use.day + nanos, use.month + nanos
        )
        fits = after.requests <= most and after.tokens <= 4 * most and after.day <= 3 * most
        try:
            check(limits, use, WorstCase(tokens, nanos), NOW)
        except RateLimited:
            assert not fits
        else:
            assert fits
            use = after


@given(st.decimals(0, 10**6, places=15))
def test_amounts_are_rounded_up_to_billionths(money: Decimal) -> None:
    nanos = to_nanos(money)
    assert 0 <= nanos - money * BILLION < 1
