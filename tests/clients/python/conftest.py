"""Tests of clients with their own environment, run by `tests/clients/test_isolated_clients.py`.

They are given the addresses of the servers.
"""

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

CHAIN = "Start with 73, add 9, subtract 2, times 4, add 7. What are the last two digits?"
THINKS = 40
BUDGET = {"max_thinking_tokens": THINKS, "thinking": {"landing": "hard"}}


@pytest.fixture(autouse=True)
def collect_garbage_between_tests() -> Iterator[None]:
    """Close abandoned streams while no request is sent.

    LiteLLM does not close a stream that has ended. If the garbage collector does while the same
    thread holds the lock of httpcore's connection pool, it waits for that lock without end.
    """
    gc.disable()
    yield
    gc.collect()


@dataclass(frozen=True)
class Server:
    """A server and its model.

    Attributes:
        url: the base URL for clients.
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
    """An engine that follows `tests/clients/scripted_servers.py`."""
    return Server(os.environ["SCRIPTED_URL"] + "/v1", "scripted")
