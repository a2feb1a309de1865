"""Fixtures that the tests of the budgets share."""

import pytest
import torch

from proctor.budget.processors.backend import ArrayBackend


@pytest.fixture(
    params=[
        pytest.param(None, id="numpy"),
        pytest.param(torch.device("cpu"), id="torch", marks=pytest.mark.slow),
    ],
    scope="module",
)
def arrays(request: pytest.FixtureRequest) -> ArrayBackend:
    """The array backends of the table and of its detectors."""
    return ArrayBackend(request.param)
