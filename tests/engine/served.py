"""One real engine on the demo model for the whole test run, behind one real server."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
from prometheus_client import REGISTRY

from proctor.server.app import create_app
from proctor.server.cli.serve import KEEP_ALIVE_SECONDS
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.settings import Settings, load_settings
from proctor.server.engines.base import Engine
from tests.engine.recording import RecordingEngine
from tests.server.harness import listening_socket
from tests.waiting import PATIENCE

NO_ENGINE = "the CPU engine is not installed"
START_SECONDS = 3 * PATIENCE
CACHE = 24 * 2**20
"""Bytes: 10,000 tokens, too few for what 64 streams want, so that some are preempted."""
T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """A running server, and the engine behind it.

    Attributes:
        url: where it listens.
        engine: the real engine, with a record of all that it gave.
        settings: what it was started with.
        loop: the event loop that both run in.
    """

    url: str
    engine: RecordingEngine
    settings: Settings
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, run where the engine lives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)


class ThreadServer(uvicorn.Server):
    """A server that leaves the test run's signal handlers alone, and tells its loop."""

    loop: asyncio.AbstractEventLoop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """The demo model behind the gateway, on a port of this machine."""
    with serving() as running:
        yield running


@contextlib.contextmanager
def metrics_kept() -> Iterator[None]:
    """Give the engine that runs already its metrics back in the end: the start of another takes
    all of vLLM's out of the process's registry."""
    from vllm.v1.metrics.prometheus import unregister_vllm_metrics

    kept = [
        collector
        for collector in REGISTRY._collector_to_names
        if getattr(collector, "_name", "").startswith("vllm:")
    ]
    try:
        yield
    finally:
        unregister_vllm_metrics()
        for collector in kept:
            REGISTRY.register(collector)


@contextlib.contextmanager
def serving(**given: Any) -> Iterator[Served]:
    """Serve the demo model with some settings."""
    pytest.importorskip("vllm", reason=NO_ENGINE)
    with metrics_kept(), _serving(**given) as running:
        yield running


@contextlib.contextmanager
def _serving(**given: Any) -> Iterator[Served]:
    engine = {"kv_cache_memory_bytes": CACHE}
    # A machine with too much to do is no engine that hangs.
    limits = {"stall_seconds": PATIENCE}
    settings = load_settings(
        {"engine": engine, "default_tier": CUSTOM, "limits": limits, **given}, None
    )
    loaded: list[RecordingEngine] = []

    def load() -> Engine:
        from proctor.server.engines.factory import load_engine

        loaded.append(RecordingEngine(load_engine(settings)))
        return loaded[0]

    app = create_app(settings, load)
    with listening_socket() as bound:
        server = ThreadServer(
            uvicorn.Config(
                app, log_level="warning", access_log=False, timeout_keep_alive=KEEP_ALIVE_SECONDS
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        try:
            asyncio.run(_until_loaded(url))
            yield Served(url, loaded[0], settings, server.loop)
        finally:
            server.should_exit = True
            thread.join()


async def _until_loaded(url: str) -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(base_url=url) as http:
        while True:
            response = await http.get("/ready")
            if response.status_code == 200:
                return
            assert "loading" in response.json()["error"]["message"]
            await asyncio.sleep(0.2)
