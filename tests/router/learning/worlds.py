"""Simulated traffic: prompts whose probability of a right answer under each tier is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from proctor.router.learning.answers import Answers, Ending
from proctor.router.learning.fitting import DAY, Recipe
from proctor.router.model import Floats, Integers
from proctor.router.outcomes.prior import Prior

TIERS = ("none", "low", "medium", "high")
RECIPE = Recipe((0, 1, 2, 3), Prior.of())
FEATURES = 6

Assign = Callable[["World"], Integers]


@dataclass(frozen=True)
class World:
    """n prompts, and what each tier gives for them.

    Attributes:
        features: (n, D) float32.
        levels: (n, 4), the classifier's probabilities of the levels.
        right: (n, 4), the true probability of a right answer under each tier.
        tokens: (n, 4), the true expected tokens.
    """

    features: Floats
    levels: Floats
    right: Floats
    tokens: Floats

    def answers(
        self, assign: Assign, seed: int = 0, days: float = 1.0, graded: float = 1.0
    ) -> Answers:
        """Return an answer to each prompt under the tier that `assign` gives it, over some days."""
        generator = np.random.default_rng(seed)
        count = len(self.features)
        tier, rows = assign(self), np.arange(count)
        score = (generator.random(count) < self.right[rows, tier]).astype(float)
        score[generator.random(count) >= graded] = np.nan
        return Answers(
            TIERS,
            self.features,
            self.levels,
            tier,
            np.round(self.tokens[rows, tier] * generator.gamma(4.0, 0.25, count)),
            score,
            np.full(count, Ending.UNKNOWN.value),
            np.linspace(0.0, days * DAY, count),
            rows,
        )

    def value(self, chosen: Integers) -> tuple[float, float]:
        """Return the true accuracy and tokens of a policy."""
        rows = np.arange(len(chosen))
        return float(self.right[rows, chosen].mean()), float(self.tokens[rows, chosen].mean())


def varied(count: int, seed: int = 0, harm: Floats | None = None) -> World:
    """Return prompts of many difficulties, which the features tell and the levels only hint at.

    Args:
        count: the number of prompts.
        seed: draws them.
        harm: (4,), what is taken from each tier's log odds of a right answer.
    """
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, FEATURES)).astype(np.float32)
    difficulty = 1.6 * features[:, 0] + 0.8 * features[:, 1]
    odds = np.array([0.0, 1.5, 3.0, 3.6]) - (np.zeros(4) if harm is None else harm)
    right = 1.0 / (1.0 + np.exp(-(odds - difficulty[:, None])))
    tokens = np.array([0.0, 60.0, 200.0, 400.0]) * np.exp(0.3 * difficulty[:, None])
    return World(features, _levels(difficulty, generator), right, tokens)


def blind(count: int, seed: int = 0) -> World:
    """Return prompts of which the features tell nothing."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, FEATURES)).astype(np.float32)
    right = np.tile([0.4, 0.7, 0.85, 0.9], (count, 1))
    tokens = np.tile([0.0, 60.0, 200.0, 400.0], (count, 1))
    return World(features, _levels(generator.normal(size=count), generator), right, tokens)


def _levels(difficulty: Floats, generator: np.random.Generator) -> Floats:
    hinted = difficulty + generator.normal(0.0, 1.5, len(difficulty))
    logits = -((hinted[:, None] - np.array([-2.0, -0.7, 0.7, 2.0])) ** 2) / 2.0
    levels = np.exp(logits)
    return np.asarray(levels / levels.sum(axis=1, keepdims=True))


def by_chance(world: World) -> Integers:
    """Assign every tier equally often."""
    return np.random.default_rng(7).integers(0, len(TIERS), len(world.features))


def by_difficulty(world: World) -> Integers:
    """Assign higher tiers to prompts that seem harder, mostly."""
    generator = np.random.default_rng(8)
    seems = world.features[:, 0] + generator.normal(0.0, 1.0, len(world.features))
    return np.digitize(seems, [-0.8, 0.0, 0.8])


def joined(*parts: Answers) -> Answers:
    """Return the answers of several times, one after the other, to different prompts."""
    start, first = 0.0, 0
    moved = []
    for part in parts:
        moved.append(replace(part, time=part.time + start, prompt=part.prompt + first))
        start, first = float(moved[-1].time.max()), int(moved[-1].prompt.max()) + 1
    names = [name for name in Answers.__slots__ if name != "tiers"]
    return Answers(
        TIERS, *(np.concatenate([getattr(each, name) for each in moved]) for name in names)
    )
