"""Databases of the ledger, timeouts for busy machines, and a classifier loaded once."""

from collections.abc import AsyncIterator
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from proctor.router import classifier
from proctor.server.accounting import reservations, sessions
from proctor.server.accounting.ledger import lease
from proctor.server.accounting.ledger.store import Store
from proctor.server.admission import routing
from proctor.server.api.generation import idempotency
from proctor.server.api.ledger import sessions as sessions_endpoint
from proctor.server.auth import authenticator
from proctor.server.storage import database
from proctor.server.storage.database import connect
from proctor.server.telemetry import request_monitor
from proctor.server.turns import secret_source
from tests.server.accounting.ledger.postgres import Cluster
from tests.waiting import PATIENCE

NUMBERS = count()
load_classifier = cache(classifier.load)


@pytest.fixture(autouse=True)
def long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extend the timeouts of the database: on a busy machine it may be slow."""
    for module in (
        authenticator,
        reservations,
        sessions,
        sessions_endpoint,
        request_monitor,
        idempotency,
        secret_source,
    ):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", PATIENCE)
    for module in (reservations, idempotency):
        monkeypatch.setattr(module, "CLOSE_SECONDS", PATIENCE)
    monkeypatch.setattr(lease, "RETIRE_SECONDS", PATIENCE)
    monkeypatch.setattr(database, "CONNECT_SECONDS", PATIENCE)


@pytest.fixture(autouse=True)
def shared_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each classifier once: it has no state, and reading it outlasts most tests."""
    monkeypatch.setattr(routing, "load", load_classifier)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each supported kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.create(f"ledger{next(NUMBERS)}")


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    """A store whose tables have been created."""
    migrated = Store(connect(url))
    await migrated.migrate()
    yield migrated
    await migrated.aclose()
