"""A gateway of two models over fake engines: "fake", the default one, and "small"."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from proctor.budget import Markers
from proctor.server.app import create_app
from proctor.server.engines.fake import END_TURN, FakeEngine, Script
from proctor.server.engines.supervisor import EngineFactory
from tests.server.harness import asgi_client, settings

SMALL: dict[str, Any] = {
    "name": "small",
    "model": "org/small",
    "aliases": ["tiny"],
    "engine": {"kind": "vllm", "urls": ["http://small.example:8000"]},
}
TIERS = [
    {"name": "none", "max_tokens": 0},
    {"name": "low", "max_tokens": 20, "model": "small"},
    {"name": "medium", "max_tokens": 30},
    {"name": "high", "max_tokens": 40},
    {"name": "max", "max_tokens": 50},
]
PRICES = {"prompt": "1", "thinking": "2", "answer": "4"}
SMALL_PRICES = {"prompt": "0.1", "thinking": "0.2", "answer": "0.4"}
MARKERS = Markers((*b"<t>",), (*b"</t>",), frozenset({END_TURN}))


def large_engine(**options: Any) -> FakeEngine:
    """Return the engine of the default model."""
    return FakeEngine(Script(("I am large.",), "large"), **options)


def small_engine(**options: Any) -> FakeEngine:
    """Return the engine of the small model, which has other markers."""
    values = {"name": "small", "markers": MARKERS, **options}
    return FakeEngine(Script(("I am small.",), "little"), **values)


@asynccontextmanager
async def two_models(
    large: FakeEngine | None = None,
    small: FakeEngine | EngineFactory | None = None,
    *,
    model: dict[str, Any] | None = None,
    **overrides: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway whose engines have loaded, the small one if it can.

    Args:
        large: the engine of the default model.
        small: that of the small model, or what loads it.
        model: settings of the small model, in addition to `SMALL`.
        overrides: other settings.
    """
    large_one = large or large_engine()
    small_one = small or small_engine()
    load = small_one if not isinstance(small_one, FakeEngine) else lambda: small_one
    server = settings(**{"models": [SMALL | (model or {})], "tiers": TIERS, **overrides})
    app = create_app(server, lambda: large_one, further={"small": load})
    async with app.router.lifespan_context(app):
        await app.state.models.default.loaded()
        if isinstance(small_one, FakeEngine):
            await app.state.models.find("small").loaded()
        async with asgi_client(app) as http:
            yield http
