"""Outcome models to test with."""

import numpy as np

from proctor.router.outcomes.model import OutcomeModel
from proctor.router.outcomes.prior import Prior

TIERS = ("none", "low", "medium", "high")


def model(rows: tuple[int, ...] = (50, 50, 50, 50)) -> OutcomeModel:
    """Return a model that knows the prior only, and tokens of 0, 100, 200 and 300."""
    return OutcomeModel(
        tiers=np.array(TIERS),
        rows=np.array(rows),
        prior_right=Prior.of().right.astype(np.float32),
        prior_slope=np.ones(4, np.float32),
        right_weights=np.zeros((4, 4), np.float32),
        right_bias=np.zeros(4, np.float32),
        token_weights=np.zeros((4, 4), np.float32),
        token_bias=np.log([1e-3, 100.0, 200.0, 300.0]).astype(np.float32),
        error_costs=np.array([0.0, 500.0, np.inf]),
        mean_tokens=np.array([0.0, 100.0, 200.0]),
        accuracy=np.array([0.5, 0.8, 0.9]),
    )
