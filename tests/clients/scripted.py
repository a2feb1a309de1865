"""Servers for what chance would spoil: the engine follows a script that the prompt chooses."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from server.app import create_app
from server.engines.base import Job
from server.engines.fake import FakeEngine, Script
from tests.server.harness import CHAT, Gate, body, listening, serving, settings, soon

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
    from server.engines.tools import VllmTools

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
    async with (
        listening(FakeEngine(before_token=gate), limits=limits) as url,
        httpx.AsyncClient(base_url=url, timeout=None) as http,
    ):
        holding = asyncio.create_task(http.post(CHAT, json=body()))
        await soon(gate.reached.wait())
        async with _once_refused(http, "overloaded", gate.opened.set):
            yield url
        await soon(holding)


@asynccontextmanager
async def loading() -> AsyncIterator[str]:
    """The URL of a server whose engine loads when a request has been refused for lack of it."""
    wanted = threading.Event()

    def load() -> FakeEngine:
        wanted.wait()
        return FakeEngine()

    async with (
        serving(create_app(settings(), load)) as url,
        httpx.AsyncClient(base_url=url, timeout=None) as http,
        _once_refused(http, "unavailable", wanted.set),
    ):
        yield url


@asynccontextmanager
async def _once_refused(
    http: httpx.AsyncClient, reason: str, act: Callable[[], None]
) -> AsyncIterator[None]:
    """Act as soon as the server has refused a request, or at the end."""

    async def watch() -> None:
        while True:
            if f'proctor_rejected_total{{reason="{reason}"}}' in (await http.get("/metrics")).text:
                return act()
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        act()


def _text(job: Job) -> str:
    return bytes(token for token in job.prompt_ids if token < 256).decode()


def _call(name: str, **arguments: Any) -> str:
    told = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{told}\n</tool_call>"
