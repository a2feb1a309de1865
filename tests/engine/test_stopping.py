"""A server told to stop while its engine is dead, or on its way, leaves nothing behind."""

import signal
from pathlib import Path

import pytest

from tests.engine.subprocesses import ended_cleanly, is_gone, serving, shared_memory

pytestmark = pytest.mark.engine

RESTARTED = "is started again"


async def test_in_the_moment_in_which_the_engine_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.ready()
        struck = server.engine()
        held = shared_memory(struck)
        server.core().send_signal(signal.SIGKILL)
        await ended_cleanly(server, held)

        assert all(map(is_gone, struck))


async def test_while_a_killed_engine_is_started_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.ready()
        struck = server.engine()
        held = shared_memory(struck)
        server.core().send_signal(signal.SIGKILL)
        server.said(RESTARTED)
        again = server.core()
        await ended_cleanly(server, held)

        assert all(map(is_gone, [*struck, again]))


async def test_while_it_loads_for_the_first_time(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        loading = server.core()
        await ended_cleanly(server, set())

        assert is_gone(loading)
