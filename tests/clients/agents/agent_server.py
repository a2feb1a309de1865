"""A server for coding agents, with a scripted engine; it records what they send."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proctor.budget import Landing
from proctor.server.accounting.ledger.service import prepare
from proctor.server.app import create_app
from proctor.server.config.budgets import Tier
from tests.clients.agents.scripted_agent import scripted_agent
from tests.engine.gateway import NO_ENGINE
from tests.engine.recording_engine import RecordingEngine
from tests.server.harness import serve_app, settings

TURN_BUDGET = 200
"""The maximum of thinking tokens of a turn; the plan's thoughts would take more than three times as
many."""

TIERS = [
    Tier(name="none", max_tokens=0),
    *(
        Tier(name=name, max_tokens=TURN_BUDGET, landing=Landing.HARD)
        for name in ("low", "medium", "high", "max")
    ),
]
"""The default tiers' names, each with the same budget: agents ask for different efforts."""


PRICES = {"prompt": 1, "thinking": 1000, "answer": 10}
"""Prices per million tokens."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and the status of its response."""

    path: str
    headers: dict[str, str]
    body: Any
    status: int


@dataclass
class AgentServer:
    """A running server.

    Attributes:
        url: its base URL.
        engine: its engine, which records the tokens of each request.
        exchanges: the requests that it has received, in the order of their responses' ends.
    """

    url: str
    engine: RecordingEngine
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def thinking_tokens(self) -> list[int]:
        """The thinking tokens of each generated response, oldest first."""
        return [self.engine.outcome(job).tokens for job in self.engine.recordings]

    def posted(self, path: str) -> list[Exchange]:
        """Return the requests to a path."""
        return [each for each in self.exchanges if each.path == path]

    @property
    def refused(self) -> list[Exchange]:
        """The requests that the server refused."""
        return [each for each in self.exchanges if each.status >= 400]


@asynccontextmanager
async def agent_server(folder: Path, **overrides: Any) -> AsyncIterator[AgentServer]:
    """Serve an engine that follows the plan in a folder, with a ledger beside the folder."""
    pytest.importorskip("vllm", reason=f"{NO_ENGINE}, and with it the tool parsers")
    engine = RecordingEngine(scripted_agent(str(folder)))
    ledger = f"sqlite:///{folder.parent / 'ledger.db'}"
    await prepare(ledger)
    defaults = {"tiers": TIERS, "ledger": {"url": ledger}, "prices": PRICES}
    app = create_app(settings(**defaults | overrides), lambda: engine)
    exchanges: list[Exchange] = []
    async with serve_app(record_exchanges(app, exchanges)) as url:
        await app.state.supervisor.loaded()
        yield AgentServer(url, engine, exchanges)


def record_exchanges(app: ASGIApp, exchanges: list[Exchange]) -> ASGIApp:
    """Wrap an application such that its requests are recorded."""

    async def recording(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body, statuses = bytearray(), [0]

        async def read() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def write(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        try:
            await app(scope, read, write)
        finally:
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            content = orjson.loads(body) if body else None
            exchanges.append(Exchange(scope["path"], headers, content, statuses[-1]))

    return recording
