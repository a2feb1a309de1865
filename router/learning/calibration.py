"""Whether predicted probabilities are the shares that come true, and whether this changes."""

from dataclasses import dataclass

import numpy as np

from proctor.router.learning.answers import Answers
from proctor.router.learning.fitting import NO_FRONTIER, Recipe, fit_outcomes
from proctor.router.model import Floats
from proctor.router.prediction import LEVELS

BINS = 10
Z95 = 1.96

RECENT_SHARE = 0.25
MIN_RECENT = 50
"""Recent answers, and recent grades, without which drift is not measured."""

MAX_PSI = 0.2
"""A population stability index over this is customarily called a shift, beyond what chance adds."""

MAX_Z = 3.0


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose predicted probability of being right is similar.

    Attributes:
        predicted: the mean of the predictions.
        observed: the share of right ones.
        interval: the 95% interval of that share (Wilson's).
        count: the number of answers.
    """

    predicted: float
    observed: float
    interval: tuple[float, float]
    count: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How good predicted probabilities are, by answers that the models had not seen.

    Attributes:
        brier: mean squared error of the predictions.
        reference: that of predicting every tier's own share of right answers.
        bins: the reliability diagram, by rising prediction.
    """

    brier: float
    reference: float
    bins: tuple[Bin, ...]

    @classmethod
    def of(cls, answers: Answers, right: Floats) -> "Calibration":
        """Compare graded answers with predictions, (n, K)."""
        predicted = right[np.arange(len(answers)), answers.tier]
        counts = np.bincount(answers.tier, minlength=len(answers.tiers))
        sums = np.bincount(answers.tier, answers.score, len(answers.tiers))
        means = (sums / np.maximum(counts, 1))[answers.tier]
        order = np.argsort(predicted, kind="stable")
        bins = [
            _bin(predicted[rows], answers.score[rows])
            for rows in np.array_split(order, BINS)
            if len(rows)
        ]
        return cls(
            float(((predicted - answers.score) ** 2).mean()),
            float(((means - answers.score) ** 2).mean()),
            tuple(bins),
        )


def _bin(predicted: Floats, score: Floats) -> Bin:
    count, share = len(score), float(score.mean())
    middle = (share + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    spread = share * (1 - share) / count + Z95**2 / (4 * count**2)
    half = Z95 * float(np.sqrt(spread)) / (1 + Z95**2 / count)
    return Bin(float(predicted.mean()), share, (middle - half, middle + half), count)


@dataclass(frozen=True, slots=True)
class Drift:
    """The difference between the newest quarter of the answers and those before.

    Attributes:
        psi: population stability index of the prompts' difficulty.
        max_psi: the index over which it is told, with what chance adds.
        z: mean excess of right answers over what a model of the earlier answers predicts, in
            standard errors; None with too few recent grades.
    """

    psi: float
    max_psi: float
    z: float | None

    @property
    def prompts_shifted(self) -> bool:
        """Whether other prompts arrive than before."""
        return self.psi > self.max_psi

    @property
    def accuracy_shifted(self) -> bool:
        """Whether the same prompts are answered better or worse than before."""
        return self.z is not None and abs(self.z) > MAX_Z


def measure_drift(answers: Answers, recipe: Recipe, penalties: tuple[float, float]) -> Drift | None:
    """Compare the newest answers with those before; None if there are too few."""
    recent_count = int(len(answers) * RECENT_SHARE)
    if recent_count < MIN_RECENT:
        return None
    split = len(answers) - recent_count
    earlier = answers.select(np.arange(split))
    recent = answers.select(np.arange(split, len(answers)))
    difficulty = [each.levels @ np.arange(len(LEVELS)) for each in (earlier, recent)]
    noise = (BINS - 1) * (1.0 / split + 1.0 / recent_count)
    return Drift(_psi(*difficulty), MAX_PSI + noise, _excess(earlier, recent, recipe, penalties))


def _psi(before: Floats, after: Floats) -> float:
    edges = np.unique(np.quantile(before, np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
    shares = []
    for values in (before, after):
        counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
        shares.append((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _excess(
    earlier: Answers, recent: Answers, recipe: Recipe, penalties: tuple[float, float]
) -> float | None:
    graded = recent.select(recent.graded)
    if len(graded) < MIN_RECENT or not earlier.graded.any():
        return None
    model = fit_outcomes(earlier, recipe, penalties).to_model(earlier, recipe, NO_FRONTIER)
    forecasts = model.forecast_all(graded.features, graded.levels)
    right = forecasts.right[np.arange(len(graded)), graded.tier]
    variance = float((right * (1.0 - right)).sum())
    return float((graded.score - right).sum() / np.sqrt(variance))
