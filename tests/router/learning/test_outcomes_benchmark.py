"""The benchmark of learned routers: how it compares, and what it learns from."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.outcomes.__main__ import Plan, draws, recipe_of
from bench.outcomes.replay import Replay, against_coin

TIERS = ("none", "low", "medium")
TOKENS = (0.0, 10.0, 40.0)


def replay(score: Any, prompts: str = "prompt") -> Replay:
    """Return answers of known scores, which think as long as their tier allows."""
    score = np.asarray(score, float)
    thinking = np.tile(TOKENS, (len(score), 1))
    names = [f"{prompts} {number}" for number in range(len(score))]
    return Replay(TIERS, names, np.array(["one"] * len(score)), score, thinking, thinking)


scores = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 3), min_size=1, max_size=30)


@given(scores, st.integers(0, 2))
def test_a_fixed_tier_is_never_above_the_coin(score: list[tuple[float, ...]], tier: int) -> None:
    rows = np.arange(len(score))
    right, used, line, gain = against_coin(replay(score), rows, np.full(len(rows), tier))
    assert (right, used) == (np.mean([row[tier] for row in score]), TOKENS[tier])
    assert line >= right
    assert gain == right - line


def test_a_choice_that_knows_the_prompts_is_above_the_coin() -> None:
    score = [[1, 1, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1]]
    chosen = np.array([0, 2, 0, 2])
    right, used, line, gain = against_coin(replay(score), np.arange(4), chosen)
    assert (right, used) == (1.0, 20.0)
    assert (line, gain) == pytest.approx((0.75, 0.25))


def test_levels_beyond_the_last_tier_get_the_last_one() -> None:
    assert recipe_of(TIERS).level_tiers == (0, 1, 2, 2)
    assert recipe_of((*TIERS, "high")).level_tiers == (0, 1, 2, 3)


@given(st.permutations(range(8)), st.integers(0, 8), st.booleans())
def test_it_learns_from_one_answer_to_each_prompt_or_from_all(
    order: list[int], count: int, one: bool
) -> None:
    prompts = np.array(order[:count], int)
    plan = Plan(learn=count, judge=1, draws=1, one=one, prices=())
    rows = plan.training(np.random.default_rng(0), prompts, len(TIERS))
    assert len(set(rows.tolist())) == len(rows) == count * (1 if one else len(TIERS))
    assert {row // len(TIERS) for row in rows.tolist()} == set(prompts.tolist())


def test_what_another_world_teaches_is_judged_on_this_one() -> None:
    """There nothing but thinking helps; here it never does, and 0 own prompts cannot tell."""
    there = replay([[0, 0, 1]] * 60, "there")
    here = replay([[1, 0, 0]] * 30, "here")
    plan = Plan(learn=0, judge=30, draws=1, one=False, prices=(1e4,), elsewhere=40)
    (draw,) = draws(here, there, plan)
    right, used, line, gain = draw.coin["10000"]
    assert (right, used, line, gain) == (0.0, 40.0, 1.0, -1.0)
