"""Calibration on simulated traffic, whose distribution is known."""

import json
import math
import random
import tomllib
from pathlib import Path

import pytest

from proctor.router.calibration import Proposal, Row, kaplan_meier, propose, propose_costs
from proctor.router.calibration_io import LedgerError, read_rows, snippet
from proctor.router.decision import Costs

MEAN = 400.0


def traffic(cap: int, count: int = 4000, tier: str = "medium", mean: float = MEAN) -> list[Row]:
    """Return rows whose thinking has exponential lengths, censored at a cap."""
    lengths = random.Random(3)
    rows = []
    for _ in range(count):
        length = math.ceil(lengths.expovariate(1 / mean))
        end_reason = "natural" if length <= cap else "max"
        rows.append(Row(tier, min(length, cap), end_reason, cap))
    return rows


def test_without_a_cap_the_quantile_is_proposed() -> None:
    (proposed,) = propose(traffic(10**9))
    assert proposed.cap == pytest.approx(MEAN * math.log(10), rel=0.06)
    assert not proposed.beyond
    assert proposed.natural == 1.0


def test_lengths_censored_at_several_caps_do_not_bias_the_estimate() -> None:
    rows = traffic(300, 2000) + traffic(700, 2000) + traffic(2000, 2000)
    (proposed,) = propose(rows)
    naive = sorted(row.tokens for row in rows if row.end_reason == "natural")
    truth = MEAN * math.log(10)
    assert proposed.cap == pytest.approx(truth, rel=0.1)
    assert naive[int(0.9 * len(naive))] < 0.75 * truth


def test_a_quantile_beyond_every_cap_proposes_a_larger_cap_to_try() -> None:
    (proposed,) = propose(traffic(200))
    assert proposed.beyond
    assert proposed.cap == 250
    assert proposed.saving is not None
    assert proposed.saving < 0


def test_expected_spending_is_the_mean_under_the_cap() -> None:
    rows = traffic(10**9)
    (proposed,) = propose(rows, quantile=0.5)
    assert proposed.cap is not None
    capped = sum(min(row.tokens, proposed.cap) for row in rows) / len(rows)
    assert proposed.expected == pytest.approx(capped)
    assert proposed.saving == pytest.approx(1 - capped / proposed.spent)


def test_loops_do_not_change_the_cap_but_count_as_spent() -> None:
    rows = traffic(10**9, 1000)
    loops = [Row("medium", 5000, "loop", 8000)] * 100
    (with_loops,), (without,) = propose(rows + loops), propose(rows)
    assert with_loops.cap == without.cap
    assert with_loops.looped == pytest.approx(100 / 1100)
    assert with_loops.spent > without.spent


def test_too_few_natural_ends_propose_nothing() -> None:
    (proposed,) = propose([Row("high", 10, "natural", 100)] * 5)
    assert (proposed.cap, proposed.expected, proposed.saving) == (None, None, None)


def test_rows_without_thinking_are_left_out() -> None:
    assert propose([Row("none", 0, "disabled", 0), Row("none", 0, "natural", 0)]) == ()


def test_a_tier_that_spends_nothing_saves_nothing() -> None:
    (proposed,) = propose([Row("low", 0, "natural", 100)] * 40)
    assert proposed.saving is None


def test_kaplan_meier_by_hand() -> None:
    rows = [
        Row("t", 1, "natural"),
        Row("t", 2, "max", 2),
        Row("t", 3, "natural"),
        Row("t", 3, "natural"),
    ]
    assert kaplan_meier(rows) == [(1, 0.75), (3, 0.0)]


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, 7.0])
def test_a_quantile_lies_between_0_and_1(quantile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        propose([], quantile)


def proposal(tier: str, spent: float) -> Proposal:
    return Proposal(tier, 100, 1.0, 0.0, 0.0, 500, False, spent, spent)


def test_costs_of_too_much_thinking_follow_the_traffic() -> None:
    proposed = propose_costs(
        [proposal("low", 100), proposal("medium", 400), proposal("high", 1500)]
    )
    assert proposed is not None
    assert proposed.none == (0.0, 0.2, 0.8, 3.0)
    assert proposed.low == (Costs().low[0], 0.0, 0.6, 2.8)
    assert proposed.high == Costs().high


@pytest.mark.parametrize(
    "proposals",
    [
        [proposal("low", 100)],
        [proposal("low", 0.0), proposal("medium", 0.0), proposal("high", 0.0)],
    ],
)
def test_no_costs_without_traffic_on_every_level(proposals: list[Proposal]) -> None:
    assert propose_costs(proposals) is None


def test_the_snippet_is_toml(tmp_path: Path) -> None:
    rows = [
        *traffic(10**9, 500, "low", 60),
        *traffic(10**9, 500, "medium", 300),
        *traffic(500, 500, "high", 900),
        Row('tier: odd"name', 5, "natural"),
    ]
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("\n".join(json.dumps(_as_json(row)) for row in rows) + "\n\n")
    assert read_rows(ledger) == rows
    proposals = propose(read_rows(ledger))
    text = snippet(proposals, propose_costs(proposals))
    settings = tomllib.loads(text)
    caps = {tier["name"]: tier.get("max_tokens") for tier in settings["tiers"]}
    assert caps["low"] == pytest.approx(60 * math.log(10), rel=0.2)
    assert caps["high"] == 625
    assert "beyond every cap" in text
    assert "Too few" in text
    assert Costs(
        *(tuple(settings["router"]["costs"][name]) for name in ("none", "low", "medium", "high"))
    )
    assert "No costs" in snippet(proposals[:1], None)


def _as_json(row: Row) -> dict[str, object]:
    return {
        "tier": row.tier,
        "tokens": row.tokens,
        "end_reason": row.end_reason,
        "max_tokens": row.max_tokens,
    }


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"tier": "low"}', '{"tier":"a","tokens":"x","end_reason":"max"}']
)
def test_a_bad_line_is_named(line: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text('{"tier":"a","tokens":1,"end_reason":"max"}\n' + line)
    with pytest.raises(LedgerError, match="line 2"):
        read_rows(ledger)


def test_a_missing_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"nowhere\.jsonl"):
        read_rows(tmp_path / "nowhere.jsonl")
