"""Hostile constraints sent to a real server, concurrent with ordinary requests."""

import asyncio
import json
import re
from collections.abc import Coroutine, Iterator
from random import Random
from typing import Any

import httpx
import jsonschema
import psutil
import pytest

from tests.engine.client import CHAT, until_idle
from tests.engine.prompts import chain
from tests.engine.serve_process import PATIENCE, Server, is_gone, serve_process
from tests.hostile_constraints import HOSTILE, TWO_HUNDRED, Fields, json_schema, tools

pytestmark = pytest.mark.engine

GRAMMAR_SECONDS = 2
"""The CPU time limit of a grammar; small, so that slow ones are refused soon."""

CONCURRENCY = 6
MAX_STAY_SECONDS = 0.5
"""The longest time after which a client disconnects."""

UNCACHED = (
    json_schema({**TWO_HUNDRED, "minProperties": 99, "maxProperties": 151}),
    json_schema({**TWO_HUNDRED, "minProperties": 98, "maxProperties": 152}),
    tools({**TWO_HUNDRED, "minProperties": 97, "maxProperties": 153}),
)
"""Slow grammars that no other test sends, because results are cached."""

ENFORCED = ("multiples of 5", "multiples of 7", "allOf with enum")
FINISH_REASONS = ("stop", "length", "tool_calls")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # On a busy machine, a slow engine must not count as stalled.
    env = {
        "PROCTOR_GRAMMARS__SECONDS": str(GRAMMAR_SECONDS),
        "PROCTOR_LIMITS__STALL_SECONDS": str(PATIENCE),
    }
    with serve_process(tmp_path_factory.mktemp("server"), env=env) as server:
        yield server.ready()


def request_body(fields: Fields, number: int = 3, **more: Any) -> dict[str, Any]:
    return {
        "model": "proctor-demo",
        "messages": [{"role": "user", "content": chain(Random(number), 3)}],
        "max_thinking_tokens": 8,
        "max_tokens": 96,
        **fields,
        **more,
    }


class Bystanders:
    """Clients that send ordinary requests."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.rounds = 0

    async def plain(self, number: int) -> str:
        """Return the text of a stream."""
        request = request_body({}, number, temperature=0, max_thinking_tokens=200, stream=True)
        text = ""
        async with self._http.stream("POST", CHAT, json={**request, "max_tokens": 400}) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    (choice,) = json.loads(line[6:])["choices"]
                    delta = choice["delta"]
                    text += (delta.get("reasoning_content") or "") + (delta.get("content") or "")
        return text

    async def any_object(self) -> None:
        json_object = {"response_format": {"type": "json_object"}}
        response = await self._http.post(CHAT, json=request_body(json_object))
        assert response.status_code == 200, response.text

    async def probes(self) -> None:
        """Check the liveness and readiness probes."""
        for path in ("/health", "/ready"):
            response = await self._http.get(path)
            assert response.status_code == 200, response.text

    async def repeat(self, expected: dict[int, str]) -> None:
        """Send these requests one after the other until cancelled."""
        while True:
            for number, text in expected.items():
                assert await self.plain(number) == text
                await self.any_object()
                await self.probes()
                self.rounds += 1


async def send_and_disconnect(http: httpx.AsyncClient, fields: Fields, seconds: float) -> None:
    """Send a request, and disconnect, usually before the response."""
    try:
        async with asyncio.timeout(seconds):
            await http.post(CHAT, json=request_body(fields))
    except TimeoutError:
        pass


async def assert_answered_or_refused(http: httpx.AsyncClient, name: str) -> None:
    """Check that a constraint is answered, or refused with a 400 that names its field."""
    fields = HOSTILE[name]
    response = await http.post(CHAT, json=request_body(fields))
    result = response.json()
    if response.status_code == 200:
        for choice in result["choices"]:
            assert choice["finish_reason"] in FINISH_REASONS, (name, choice)
        if name in ENFORCED and result["choices"][0]["finish_reason"] == "stop":
            answer = json.loads(result["choices"][0]["message"]["content"])
            jsonschema.validate(answer, fields["response_format"]["json_schema"]["schema"])
        return
    assert response.status_code == 400, (name, result)
    param, code = result["error"]["param"], result["error"]["code"]
    if param is None:
        assert name == "200 levels"  # nested too deeply to be parsed
    elif code == "context_length_exceeded":
        assert "tools" in fields  # they are part of the prompt, and the context is short
    else:
        assert re.split(r"[.[]", param)[0] in fields, (name, result)


def is_grammar_worker(process: psutil.Process) -> bool:
    """Return whether a process was forked to compile a grammar."""
    try:
        return bool(process.nice() > 0)
    except psutil.NoSuchProcess:
        return False


async def run_concurrently(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines, at most `CONCURRENCY` at a time."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def run_in_slot(coroutine: Coroutine[Any, Any, None]) -> None:
        async with slots:
            await coroutine

    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(run_in_slot(coroutine))


async def test_hostile_constraints_do_not_affect_other_requests(server: Server) -> None:
    before = {process.pid for process in server.engine()}
    rng = Random(7)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=limits) as http:
        bystanders = Bystanders(http)
        expected = {number: await bystanders.plain(number) for number in (11, 12)}
        work = [assert_answered_or_refused(http, name) for name in HOSTILE]
        work += [
            send_and_disconnect(http, each, rng.random() * MAX_STAY_SECONDS)
            for each in HOSTILE.values()
        ]
        rng.shuffle(work)
        async with asyncio.TaskGroup() as group:
            others = group.create_task(bystanders.repeat(expected))
            await run_concurrently(work)
            others.cancel()
        await bystanders.probes()
        assert {number: await bystanders.plain(number) for number in expected} == expected
        await until_idle(http)

    assert bystanders.rounds
    assert before
    assert {process.pid for process in server.engine()} == before
    assert not is_gone(server.process)


async def test_the_server_stops_while_hostile_constraints_compile(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        requests = [
            asyncio.create_task(http.post(CHAT, json=request_body(fields))) for fields in UNCACHED
        ]
        async with asyncio.timeout(PATIENCE):
            while not any(map(is_grammar_worker, server.children())):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        server.process.terminate()
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0, server.text
        await asyncio.gather(*requests, return_exceptions=True)
