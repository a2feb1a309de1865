"""Settings that apply to all tests."""

import inspect
import os

import httpx
import pytest
from hypothesis import settings

from tests.waiting import PATIENCE

pytest_plugins = ["tests.engine.gateway", "tests.server.accounting.ledger.postgres"]

# A first call pays for imports and lazy set-up, so time per example says nothing.
settings.register_profile("proctor", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("proctor")

# By default httpx times out after 5 s, which is too short for a busy machine.
for function in (
    httpx.AsyncClient.__init__,
    httpx.Client.__init__,
    httpx.get,
    httpx.post,
    httpx.stream,
):
    inspect.unwrap(function).__kwdefaults__["timeout"] = PATIENCE

# Without this, commands would write a ledger to the home folder of the user.
os.environ["PROCTOR_LEDGER__URL"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start the real engine."""
    for item in items:
        if "vllm_gateway" in getattr(item, "fixturenames", ()):
            item.add_marker("engine")
