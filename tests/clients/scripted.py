"""Servers for what chance would spoil: the engine follows a script that the prompt chooses."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proctor.server.app import create_app
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import CHAT, Gate, body, serve_app, settings, with_timeout

THOUGHT = "Let me see."
ANSWER = "The answer is 42."
HELD_AT = len(THOUGHT) + 4
"""The token before which a prompt that says "hold" stops: a few into its answer."""


def script(job: Job) -> Script:
    """Who asks about the weather gets a tool called, and an answer once it has been.

    What was said before the last message of a user's is no matter.
    """
    prompt = _text(job).rpartition("user\n")[2]
    if "Weather in" in prompt and "\ntool\n" not in prompt:
        cities = ["Paris", "Oslo"] if "two cities" in prompt else ["Paris"]
        return Script((THOUGHT,), "\n".join(_call("get_weather", city=city) for city in cities))
    if "As JSON" in prompt:
        return Script((THOUGHT,), '{"degrees": 21}')
    if "\ntool\n" in prompt:
        return Script((THOUGHT,), "It is 21 degrees.")
    return Script((THOUGHT,), ANSWER)


async def hold(job: Job, position: int) -> None:
    """Never go on with an answer to a prompt that says "hold"."""
    if position == HELD_AT and "hold" in _text(job):
        await asyncio.Event().wait()


def engine() -> FakeEngine:
    """An engine that follows `script`, and calls tools as Hermes and Qwen do."""
    from proctor.server.engines.vllm.tools import VllmTools

    return FakeEngine(
        script, name="scripted", before_token=hold, tools=VllmTools("hermes", Words())
    )


class Words:
    """As much of a tokenizer as the tool parser asks for."""

    def get_vocab(self) -> dict[str, int]:
        return {}


@asynccontextmanager
async def busy() -> AsyncIterator[str]:
    """The URL of a server that is full when a request comes, and idle when it comes again."""
    gate = Gate(0)
    limits = {"max_running": 1, "max_waiting": 0}
    app = create_app(settings(limits=limits), lambda: FakeEngine(before_token=gate))

    async def empty() -> None:
        gate.opened.set()
        await holding

    async with serve_app(Relenting(app, empty)) as url, httpx.AsyncClient(base_url=url) as http:
        await app.state.supervisor.loaded()
        holding = asyncio.create_task(http.post(CHAT, json=body()))
        await with_timeout(gate.reached.wait())
        try:
            yield url
        finally:
            await empty()


@asynccontextmanager
async def loading() -> AsyncIterator[str]:
    """The URL of a server whose engine loads when a request has been refused for lack of it."""
    wanted = threading.Event()

    def load() -> FakeEngine:
        wanted.wait()
        return FakeEngine()

    app = create_app(settings(), load)

    async def arrive() -> None:
        wanted.set()
        await app.state.supervisor.loaded()

    async with serve_app(Relenting(app, arrive)) as url:
        try:
            yield url
        finally:
            wanted.set()


class Relenting:
    """A server that mends what it refuses a chat for before it says so.

    However soon the client tries again, and however little time the server gets, it is mended.
    """

    def __init__(self, app: ASGIApp, mend: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._mend = mend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def send_once_mended(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (429, 503):
                await self._mend()
            await send(message)

        chats = scope["type"] == "http" and scope["path"] == CHAT
        await self._app(scope, receive, send_once_mended if chats else send)


def _text(job: Job) -> str:
    return bytes(token for token in job.prompt_ids if token < 256).decode(errors="replace")


def _call(name: str, **arguments: Any) -> str:
    told = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{told}\n</tool_call>"
