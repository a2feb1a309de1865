"""The completions server of these tests."""

from collections.abc import AsyncIterator

import pytest

from tests.server.engines.completions.fake_upstream import FakeServer


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer().serving() as serving:
        yield serving
