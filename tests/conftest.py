"""What every test shares."""

import inspect
import os

import httpx
import pytest
from hypothesis import settings

from tests.waiting import PATIENCE

pytest_plugins = ["tests.engine.served", "tests.server.accounting.ledger.postgres"]

# A first call pays for imports and lazy set-up, so time per example says nothing.
settings.register_profile("proctor", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("proctor")

# Where nothing else is said, httpx waits 5 s for an answer; on a busy machine one may take longer.
for asks in (
    httpx.AsyncClient.__init__,
    httpx.Client.__init__,
    httpx.get,
    httpx.post,
    httpx.stream,
):
    inspect.unwrap(asks).__kwdefaults__["timeout"] = PATIENCE

# Or else commands would keep a ledger in this user's home.
os.environ["PROCTOR_LEDGER__URL"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts the real engine."""
    for item in items:
        if "served" in getattr(item, "fixturenames", ()):
            item.add_marker("engine")
