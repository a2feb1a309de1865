"""The numbers that an outcome model sees of a prompt."""

import numpy as np

from proctor.router.model import Floats
from proctor.router.prediction import LEVELS, Prediction

MIN_PROBABILITY = 0.01
"""Lower bound on a level's probability, so that its logarithm is bounded."""


def extract(prediction: Prediction) -> Floats:
    """Return the features, of shape (D,), float32.

    They are log probabilities of the levels, and what else the classifier tells.
    """
    logs = np.log(np.maximum(prediction.probabilities, MIN_PROBABILITY))
    return np.concatenate([logs - logs.sum() / len(LEVELS), prediction.features], dtype=np.float32)
