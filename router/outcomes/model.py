"""The outcome model: two generalized linear models per tier, in NumPy only."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctor.router.model import Floats, Integers, ModelError
from proctor.router.outcomes.features import extract
from proctor.router.prediction import Prediction

MIN_RIGHT, MAX_RIGHT = 0.001, 0.999
"""Bounds of a predicted probability: no finite number of answers shows more."""

MAX_LOG_TOKENS = 14.0
"""Bound of the logarithm of predicted tokens, so that no outlier overflows."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an outcome model expects of each of K tiers for one prompt.

    Attributes:
        right: (K,), the probability of a right answer.
        tokens: (K,), the expected number of thinking tokens.
    """

    right: Floats
    tokens: Floats


@dataclass(frozen=True, slots=True)
class OutcomeModel:
    """The trained arrays; L is 4 levels, K tiers, D features, F points of the frontier.

    Attributes:
        tiers: (K,) names of the tiers, from the least thinking to the most.
        rows: (K,) number of answers of each tier that it was learned from.
        prior_right: (L, K) float32, the prior's probability of a right answer of a prompt of each
            level under each tier.
        prior_slope: (K,) float32, how much each tier trusts the prior: 1 unless learned otherwise.
        right_weights: (K, D) float32, added to the logit of the prior.
        right_bias: (K,) float32.
        token_weights: (K, D) float32, of the logarithm of the expected tokens.
        token_bias: (K,) float32.
        error_costs: (F,) float64, ascending prices of a wrong answer, in tokens; the last one is
            infinite.
        mean_tokens: (F,) float64, mean tokens of the traffic at each of these prices.
        accuracy: (F,) float64, the share of right answers at each of these prices.
    """

    tiers: NDArray[np.str_]
    rows: Integers
    prior_right: Floats
    prior_slope: Floats
    right_weights: Floats
    right_bias: Floats
    token_weights: Floats
    token_bias: Floats
    error_costs: Floats
    mean_tokens: Floats
    accuracy: Floats

    @classmethod
    def load(cls, path: Path) -> "OutcomeModel":
        """Read a model.

        Raises:
            ModelError: if the file cannot be read or is not an outcome model.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                model = cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, KeyError, ValueError) as error:
            raise ModelError(f"{path} is not an outcome model: {error}") from error
        model.check(path)
        return model

    def check(self, path: Path) -> None:
        """Check the shapes of the arrays.

        Raises:
            ModelError: if they do not fit together, or a number is not finite.
        """
        tiers, features = self.right_weights.shape
        points = len(self.error_costs)
        shapes = {
            "tiers": (tiers,),
            "rows": (tiers,),
            "prior_right": (4, tiers),
            "prior_slope": (tiers,),
            "right_bias": (tiers,),
            "token_weights": (tiers, features),
            "token_bias": (tiers,),
            "mean_tokens": (points,),
            "accuracy": (points,),
        }
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape != shape]
        numbers = (
            self.prior_right,
            self.prior_slope,
            self.right_weights,
            self.right_bias,
            self.token_weights,
            self.token_bias,
        )
        if wrong or not points or not all(np.isfinite(array).all() for array in numbers):
            raise ModelError(f"{path} is not an outcome model: {', '.join(wrong) or 'bad numbers'}")

    def save(self, path: Path) -> None:
        """Write the model; equal models give equal bytes."""
        arrays: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def forecast(self, prediction: Prediction) -> Forecast:
        """Return what to expect of each tier for a prompt.

        Raises:
            ModelError: if it was learned with the features of another classifier.
        """
        features = extract(prediction)
        if len(features) != self.right_weights.shape[1]:
            raise ModelError(
                f"The outcome model takes {self.right_weights.shape[1]} features, the classifier "
                f"gives {len(features)}: learn it with the classifier that the router uses"
            )
        return self.forecast_all(features[None, :], np.array([prediction.probabilities])).row(0)

    def forecast_all(self, features: Floats, levels: Floats) -> "Forecasts":
        """Return what to expect of each tier for n prompts.

        Args:
            features: (n, D), as of `extract`.
            levels: (n, L), the probabilities of the levels.
        """
        logits = self.prior_slope * logit(levels @ self.prior_right)
        logits += features @ self.right_weights.T + self.right_bias
        logs = features @ self.token_weights.T + self.token_bias
        right = 1.0 / (1.0 + np.exp(-logits))
        return Forecasts(
            np.clip(right, MIN_RIGHT, MAX_RIGHT), np.exp(np.minimum(logs, MAX_LOG_TOKENS))
        )


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What an outcome model expects of K tiers for n prompts.

    Attributes:
        right: (n, K), probabilities of a right answer.
        tokens: (n, K), expected numbers of thinking tokens.
    """

    right: Floats
    tokens: Floats

    def row(self, index: int) -> Forecast:
        """Return the forecast of one prompt."""
        return Forecast(self.right[index], self.tokens[index])


def logit(probabilities: Floats) -> Floats:
    """Return log odds, of probabilities clipped away from 0 and 1."""
    clipped = np.clip(probabilities, MIN_RIGHT, MAX_RIGHT)
    return np.asarray(np.log(clipped / (1.0 - clipped)))
