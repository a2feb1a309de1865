"""A ledger for the tests of several models."""

from pathlib import Path

import pytest

from proctor.server.accounting.ledger.service import prepare


@pytest.fixture
async def url(tmp_path: Path) -> str:
    """The URL of a ledger, which is prepared as `proctor serve` does."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    await prepare(url)
    return url
