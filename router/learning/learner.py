"""Learns an outcome model, and tells whether it should be used."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from proctor.router.learning.answers import Answers
from proctor.router.learning.calibration import Calibration, Drift, measure_drift
from proctor.router.learning.fitting import (
    NO_FRONTIER,
    Recipe,
    choose_penalties,
    fit_outcomes,
    held_out_forecasts,
)
from proctor.router.learning.judgement import Judge, Judgement, to_frontier
from proctor.router.learning.off_policy import Contributions
from proctor.router.model import Floats
from proctor.router.outcomes.frontier import Price
from proctor.router.outcomes.model import Forecasts, OutcomeModel
from proctor.router.outcomes.policy import MIN_ROWS, Objective, Rule

MIN_GRADED = 100
"""Graded answers without which nothing can be judged."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What held-out answers tell about an outcome model.

    Attributes:
        calibration: of its probabilities.
        judgement: of the policy that it makes with the operator's objective.
        price: the price of a wrong answer that follows from the objective.
        rule: the setting that the price is due to.
    """

    calibration: Calibration
    judgement: Judgement
    price: Price
    rule: Rule


@dataclass(frozen=True, slots=True)
class Learned:
    """An outcome model, and what is known about it.

    Attributes:
        model: the model.
        answers: the number of answers of each tier.
        graded: the number of graded ones of each tier.
        endings: how ungraded answers ended.
        findings: None with too few graded answers.
        drift: None with too few answers.
        objections: reasons not to use the model; empty if there are none.
    """

    model: OutcomeModel
    answers: dict[str, int]
    graded: dict[str, int]
    endings: dict[str, int]
    findings: Findings | None
    drift: Drift | None
    objections: tuple[str, ...]


def learn(answers: Answers, recipe: Recipe, objective: Objective) -> Learned:
    """Learn from answers; deterministic.

    Raises:
        ValueError: if there are no answers.
    """
    if not len(answers):
        raise ValueError("There are no answers of the router's tiers to learn from")
    penalties = choose_penalties(answers, recipe)
    outcomes = fit_outcomes(answers, recipe, penalties)
    graded = int(answers.graded.sum())
    findings, points = None, NO_FRONTIER
    if graded >= MIN_GRADED:
        findings, points = _judge(answers, recipe, penalties, objective)
    model = outcomes.to_model(answers, recipe, points)
    return Learned(
        model,
        _count(answers),
        _count(answers.select(answers.graded)),
        dict(Counter(answers.ending[~answers.graded].tolist())),
        findings,
        measure_drift(answers, recipe, penalties),
        tuple(_objections(model, graded, findings, objective)),
    )


def _judge(
    answers: Answers, recipe: Recipe, penalties: tuple[float, float], objective: Objective
) -> tuple[Findings, Floats]:
    """Return findings and the frontier, by forecasts of models that had not seen a prompt."""
    forecasts = held_out_forecasts(answers, recipe, penalties)
    rows, weights = answers.graded, recipe.weights(answers)
    graded = answers.select(rows)
    of_graded = Forecasts(forecasts.right[rows], forecasts.tokens[rows])
    judge = Judge(Contributions.of(graded, of_graded, weights[rows]), of_graded)
    points = judge.frontier()
    price, rule = objective.price(to_frontier(points))
    judgement = judge.judge(price, recipe.prior_choices(graded.levels))
    calibration = Calibration.of(graded, of_graded.right)
    return Findings(calibration, judgement, price, rule), points


def _count(answers: Answers) -> dict[str, int]:
    counts = np.bincount(answers.tier, minlength=len(answers.tiers)).tolist()
    return dict(zip(answers.tiers, counts, strict=True))


def _objections(
    model: OutcomeModel, graded: int, findings: Findings | None, objective: Objective
) -> list[str]:
    """Return reasons not to use a model."""
    objections = []
    if (model.rows >= MIN_ROWS).sum() < 2:
        objections.append(f"fewer than two tiers have {MIN_ROWS} answers")
    if findings is None:
        return [*objections, f"{graded} answers are graded; {MIN_GRADED} are needed to judge it"]
    judgement, floor = findings.judgement, objective.min_accuracy
    if floor is not None and judgement.routed.right < floor:
        objections.append(
            f"its accuracy, {judgement.routed.right:.3f}, is below min_accuracy, {floor:g}"
        )
    if judgement.gain < 0.0:
        objections.append(
            f"its accuracy, {judgement.routed.right:.3f}, is below what a coin between two tiers "
            f"gives for its tokens, {judgement.line:.3f}"
        )
    return objections
