"""Databases for ledgers."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from server.ledger.database import connect
from server.ledger.store import Store
from tests.server.ledger.postgres import Cluster

NUMBERS = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, in each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    running: Cluster = request.getfixturevalue("postgres")
    return running.create(f"ledger{next(NUMBERS)}")


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    """A store whose tables are there."""
    made = Store(connect(url))
    await made.migrate()
    yield made
    await made.aclose()
