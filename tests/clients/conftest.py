"""Fixtures of the tests with clients."""

from collections.abc import AsyncIterator

import pytest

from tests.clients.scripted_servers import scripted_engine
from tests.engine.gateway import NO_ENGINE
from tests.server.harness import running_server

# Run in their own environments by test_isolated_clients.py.
collect_ignore = ["agents_sdk", "python"]


@pytest.fixture
async def scripted_url() -> AsyncIterator[str]:
    """The URL of a server whose engine follows a script."""
    pytest.importorskip("vllm", reason=f"{NO_ENGINE}, and with it the tool parsers")
    async with running_server(scripted_engine()) as url:
        yield url
