"""The report of a launched session."""

from typing import Any

import pytest

from proctor.server.cli.launch.session import LaunchedSession
from proctor.server.cli.launch.summary import headline, print_summary


def card(*, priced: bool = True, **limits: Any) -> dict[str, Any]:
    """Return a session as `GET /v1/sessions/{id}` does."""
    unlimited = {"max_thinking_tokens": None, "max_cost": None}
    cost = {"prompt": 0.000046, "thinking": 0.00066, "answer": 0.00004, "total": 0.000746}
    return {
        "id": "s-1",
        "used": {
            "requests": 1302,
            "thinking_tokens": 139000,
            "tokens": 150000,
            "cost": 0.000854 if priced else 0.0,
        },
        "limits": unlimited | limits,
        "currency": "EUR",
        "tiers": [
            {
                "tier": "high",
                "requests": 1302,
                "prompt_tokens": 9000,
                "thinking_tokens": 139000,
                "answer_tokens": 2000,
                "cost": cost if priced else dict.fromkeys(cost, 0.0),
            }
        ],
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            card(max_thinking_tokens=200000, max_cost=2.5),
            "1,302 requests, 139,000 of 200,000 thinking tokens, 0.000854 of 2.5 EUR",
        ),
        (card(), "1,302 requests, 139,000 thinking tokens, 0.000854 EUR"),
        (card(priced=False), "1,302 requests, 139,000 thinking tokens"),
    ],
)
def test_the_headline_has_what_was_used_of_each_limit(found: dict[str, Any], expected: str) -> None:
    assert headline(found) == f"Session s-1: {expected}"


def test_costs_are_by_tier_and_part(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(card(), LaunchedSession("s-1"))

    output = capsys.readouterr()
    columns, row = output.err.splitlines()[-2:]
    assert output.out == ""
    assert "thinking EUR" in columns
    assert row.split() == [
        *("high", "1,302", "9,000", "139,000", "2,000"),
        *("0.000046", "0.000660", "0.000040", "0.000746"),
    ]


def test_without_prices_there_are_no_costs(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(card(priced=False), LaunchedSession("s-1"))

    assert "EUR" not in capsys.readouterr().err


def test_a_session_without_a_record_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(None, LaunchedSession("s-1"))

    assert "no record of the session s-1" in capsys.readouterr().err
