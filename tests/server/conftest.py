"""Databases for ledgers."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from proctor.server.accounting.ledger.store import Store
from proctor.server.storage.database import connect
from tests.server.accounting.ledger.postgres import Cluster
from tests.waiting import PATIENCE

NUMBERS = count()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases are waited for as long as a busy machine takes over them."""
    for module in (
        "proctor.server.auth.authenticator",
        "proctor.server.accounting.reservations",
        "proctor.server.telemetry.request_monitor",
        "proctor.server.api.generation.idempotency",
    ):
        monkeypatch.setattr(f"{module}.PATIENCE_SECONDS", PATIENCE)
    for module in (
        "proctor.server.accounting.reservations",
        "proctor.server.api.generation.idempotency",
    ):
        monkeypatch.setattr(f"{module}.CLOSE_SECONDS", PATIENCE)
    monkeypatch.setattr("proctor.server.accounting.ledger.lease.RETIRE_SECONDS", PATIENCE)
    monkeypatch.setattr("proctor.server.storage.database.CONNECT_SECONDS", PATIENCE)


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
