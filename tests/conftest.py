"""What every test shares."""

import os

import pytest
from hypothesis import settings

pytest_plugins = ["tests.engine.served", "tests.server.ledger.postgres"]

# A first call pays for imports and lazy set-up, so time per example says nothing.
settings.register_profile("proctor", deadline=None)
settings.load_profile("proctor")

# Or else commands would keep a ledger in this user's home.
os.environ["PROCTOR_LEDGER__URL"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts the real engine."""
    for item in items:
        if "served" in getattr(item, "fixturenames", ()):
            item.add_marker("engine")
