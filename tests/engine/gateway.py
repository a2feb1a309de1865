"""A gateway over vLLM with the demo model, shared by all tests of a run."""

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
from proctor.server.cli.http_server import KEEP_ALIVE_SECONDS
from proctor.server.config.budgets import CUSTOM, DEFAULT_TIERS
from proctor.server.config.settings import Settings, load_settings
from proctor.server.engines.base import Engine
from tests.engine.recording_engine import RecordingEngine
from tests.server.harness import listening_socket
from tests.waiting import PATIENCE

NO_ENGINE = "the CPU engine is not installed"
START_SECONDS = 3 * PATIENCE
CACHE = 24 * 2**20
"""Bytes of the KV cache: 10,000 tokens, too few for 64 streams, so that some are preempted."""
TIERS = [tier.model_copy(update={"min_tokens": 0, "max_tokens": 0}) for tier in DEFAULT_TIERS]
"""Tiers that fit any context."""
T = TypeVar("T")


@dataclass(frozen=True)
class Gateway:
    """A running gateway, and its engine.

    Attributes:
        url: its base URL.
        engine: the real engine, which records its tokens.
        settings: its settings.
        loop: the event loop of both.
        vllm_url: the base URL of the server that exposes vLLM's metrics.
    """

    url: str
    engine: RecordingEngine
    settings: Settings
    loop: asyncio.AbstractEventLoop
    vllm_url: str = ""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop of the engine, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)


class ThreadServer(uvicorn.Server):
    """A server that does not replace the test run's signal handlers, and exposes its loop."""

    loop: asyncio.AbstractEventLoop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture(scope="session")
def vllm_gateway() -> Iterator[Gateway]:
    """A gateway over vLLM with the demo model, on a loopback port."""
    with running_gateway() as gateway:
        yield gateway


@contextlib.contextmanager
def restored_metrics() -> Iterator[None]:
    """Register the metrics of the running engine again at the end.

    The start of another engine removes all of vLLM's metrics from the process's registry.
    """
    from vllm.v1.metrics.prometheus import unregister_vllm_metrics

    collectors = [
        collector
        for collector in REGISTRY._collector_to_names
        if getattr(collector, "_name", "").startswith("vllm:")
    ]
    try:
        yield
    finally:
        unregister_vllm_metrics()
        for collector in collectors:
            REGISTRY.register(collector)


@contextlib.contextmanager
def running_gateway(**overrides: Any) -> Iterator[Gateway]:
    """Serve the demo model, with `overrides` over the default settings."""
    pytest.importorskip("vllm", reason=NO_ENGINE)
    engine = {"kv_cache_memory_bytes": CACHE}
    # On a busy machine, a slow engine must not count as stalled.
    limits = {"stall_seconds": PATIENCE}
    settings = load_settings(
        {"engine": engine, "default_tier": CUSTOM, "limits": limits, **overrides}, None
    )
    with restored_metrics(), _running_gateway(settings) as gateway:
        yield gateway


@contextlib.contextmanager
def _running_gateway(settings: Settings) -> Iterator[Gateway]:
    loaded: list[RecordingEngine] = []

    def load() -> Engine:
        from proctor.server.engines.factory import load_engine

        loaded.append(RecordingEngine(load_engine(settings)))
        return loaded[0]

    app = create_app(settings, load)
    with listening_socket() as listener:
        server = ThreadServer(
            uvicorn.Config(
                app, log_level="warning", access_log=False, timeout_keep_alive=KEEP_ALIVE_SECONDS
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            asyncio.run(_until_loaded(url))
            yield Gateway(url, loaded[0], settings, server.loop, vllm_url=url)
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
