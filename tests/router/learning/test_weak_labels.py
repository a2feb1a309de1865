from dataclasses import replace

import numpy as np
import pytest

from proctor.router.learning.answers import Answers, Ending
from proctor.router.learning.fitting import NO_FRONTIER, fit_outcomes
from proctor.router.learning.weak_labels import GUESSES, MAX_UNGRADED, WEIGHT, labels
from tests.router.learning.worlds import RECIPE, by_chance, varied


def ended(ending: Ending, count: int = 40, graded: int = 0, right: float = 1.0) -> Answers:
    """Return answers that ended so, all under one tier, of which some have a score."""
    answers = varied(count).answers(lambda world: np.ones(len(world.features), np.intp), graded=0)
    score = np.full(count, np.nan)
    score[:graded] = right
    return replace(answers, ending=np.full(count, ending.value), score=score)


@pytest.mark.parametrize("ending", GUESSES)
def test_without_grades_a_label_is_a_guess(ending: Ending) -> None:
    target, factor = labels(ended(ending), np.ones(40))
    assert target == pytest.approx(GUESSES[ending])
    assert factor == pytest.approx(WEIGHT)


def test_an_ending_that_says_nothing_has_no_weight() -> None:
    _, factor = labels(ended(Ending.UNKNOWN), np.ones(40))
    assert not factor.any()


def test_labels_follow_the_grades_of_answers_that_ended_alike() -> None:
    target, factor = labels(ended(Ending.NATURAL, 400, graded=300, right=0.0), np.ones(400))
    assert target[:300] == pytest.approx(0.0)
    assert factor[:300] == pytest.approx(1.0)
    assert (target[300:] < 0.03).all()
    assert factor[300:] == pytest.approx(WEIGHT)


def test_many_ungraded_answers_do_not_outvote_the_graded() -> None:
    _, factor = labels(ended(Ending.NATURAL, 5000), np.ones(5000))
    assert factor.sum() == pytest.approx(MAX_UNGRADED)
    _, factor = labels(ended(Ending.NATURAL, 5000, graded=300), np.ones(5000))
    assert factor[300:].sum() == pytest.approx(300)


def test_a_tier_whose_answers_are_cut_is_trusted_less() -> None:
    """Without a single grade."""
    world = varied(400)
    answers = world.answers(by_chance, graded=0.0)
    cut = np.where(answers.tier == 1, Ending.CAPPED.value, Ending.NATURAL.value)
    shares = []
    for ending in (np.full(400, Ending.NATURAL.value), cut):
        fitted = fit_outcomes(replace(answers, ending=ending), RECIPE, (10.0, 10.0))
        model = fitted.to_model(answers, RECIPE, NO_FRONTIER)
        shares.append(model.forecast_all(world.features, world.levels).right.mean(axis=0))
    assert shares[1][1] < shares[0][1] - 0.05
    assert shares[1][3] == pytest.approx(shares[0][3], abs=0.03)


@pytest.mark.parametrize(
    ("end", "finish", "spilled", "repeated", "ending"),
    [
        ("natural", "stop", 0, False, Ending.NATURAL),
        ("natural", "length", 0, False, Ending.TRUNCATED),
        ("max", "stop", 0, False, Ending.CAPPED),
        ("length", "stop", 0, False, Ending.CAPPED),
        ("loop", "length", 0, False, Ending.LOOP),
        ("natural", "stop", 3, False, Ending.SPILLED),
        ("settled", "stop", 0, False, Ending.SETTLED),
        ("unsure", "stop", 0, False, Ending.UNSURE),
        ("natural", "stop", 0, True, Ending.REPEATED),
        ("disabled", "stop", 0, False, Ending.UNKNOWN),
        ("cancelled", "abort", 0, False, Ending.UNKNOWN),
    ],
)
def test_endings_are_read_from_rows(
    end: str, finish: str, spilled: int, repeated: bool, ending: Ending
) -> None:
    assert Ending.of(end, finish, spilled, repeated=repeated) is ending
