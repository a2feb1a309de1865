"""Servers with deterministic engines: the prompt selects the script that the engine follows."""

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
BLOCKED_POSITION = len(THOUGHT) + 4
"""The position at which a prompt that contains "hold" blocks: a few tokens into the answer."""


def script(job: Job) -> Script:
    """Return a tool call for a question about the weather, and an answer after its result.

    Only the last user message and what follows it matter.
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


async def block_on_hold(job: Job, position: int) -> None:
    """Block the answer to a prompt that contains "hold" forever."""
    if position == BLOCKED_POSITION and "hold" in _text(job):
        await asyncio.Event().wait()


def scripted_engine() -> FakeEngine:
    """Return an engine that follows `script`, with tool calls in the format of Hermes and Qwen."""
    from proctor.server.engines.vllm.tools import VllmTools

    return FakeEngine(
        script,
        name="scripted",
        before_token=block_on_hold,
        tools=VllmTools("hermes", EmptyVocabulary()),
    )


class EmptyVocabulary:
    """The part of a tokenizer that the tool parser needs."""

    def get_vocab(self) -> dict[str, int]:
        return {}


@asynccontextmanager
async def busy_server() -> AsyncIterator[str]:
    """Yield the URL of a server whose queue is full at a first request, and empty at its retry."""
    gate = Gate(0)
    limits = {"max_running": 1, "max_waiting": 0}
    app = create_app(settings(limits=limits), lambda: FakeEngine(before_token=gate))

    async def finish_running() -> None:
        gate.opened.set()
        await blocked

    async with (
        serve_app(RecoverOnRefusal(app, finish_running)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        await app.state.supervisor.loaded()
        blocked = asyncio.create_task(http.post(CHAT, json=body()))
        await with_timeout(gate.reached.wait())
        try:
            yield url
        finally:
            await finish_running()


@asynccontextmanager
async def loading_server() -> AsyncIterator[str]:
    """Yield the URL of a server whose engine loads once a request was refused with a 503."""
    may_load = threading.Event()

    def load() -> FakeEngine:
        may_load.wait()
        return FakeEngine()

    app = create_app(settings(), load)

    async def finish_loading() -> None:
        may_load.set()
        await app.state.supervisor.loaded()

    async with serve_app(RecoverOnRefusal(app, finish_loading)) as url:
        try:
            yield url
        finally:
            may_load.set()


class RecoverOnRefusal:
    """An application that recovers when it refuses a chat request, before it sends the refusal.

    So a retry succeeds, however soon it comes and however slow the server is.
    """

    def __init__(self, app: ASGIApp, recover: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._recover = recover

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def recover_and_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (429, 503):
                await self._recover()
            await send(message)

        is_chat = scope["type"] == "http" and scope["path"] == CHAT
        await self._app(scope, receive, recover_and_send if is_chat else send)


def _text(job: Job) -> str:
    return bytes(token for token in job.prompt_ids if token < 256).decode(errors="replace")


def _call(name: str, **arguments: Any) -> str:
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"
