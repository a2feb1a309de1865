"""Tests of clients that need an environment of their own; `tests/clients/test_apart.py` runs them.

They know the server by its address alone.
"""

import os
from dataclasses import dataclass

import pytest

CHAIN = "Start with 73, add 9, subtract 2, times 4, add 7. What are the last two digits?"
THINKS = 40
BUDGET = {"max_thinking_tokens": THINKS, "thinking": {"landing": "hard"}}


@dataclass(frozen=True)
class Server:
    """A server, by the name of its model.

    Attributes:
        url: what clients take as their base.
        model: the model's name.
    """

    url: str
    model: str


@pytest.fixture(scope="session")
def real() -> Server:
    """The real engine on the demo model."""
    return Server(os.environ["REAL_URL"] + "/v1", "proctor-demo")


@pytest.fixture(scope="session")
def scripted() -> Server:
    """An engine that follows `tests/clients/scripted.py`."""
    return Server(os.environ["SCRIPTED_URL"] + "/v1", "scripted")
