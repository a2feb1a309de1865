"""What the clients' tests share."""

from collections.abc import AsyncIterator

import pytest

from tests.clients import scripted as scripts
from tests.engine.gateway import NO_ENGINE
from tests.server.harness import running_server

collect_ignore = ["python"]  # these run in an environment of their own: test_apart.py


@pytest.fixture
async def scripted() -> AsyncIterator[str]:
    """The URL of a server whose engine follows a script."""
    pytest.importorskip("vllm", reason=f"{NO_ENGINE}, and with it the tool parsers")
    async with running_server(scripts.engine()) as url:
        yield url
