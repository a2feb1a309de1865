"""Every hostile constraint there is a name for, sent to a real server that serves others beside."""

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

from tests.engine.asking import CHAT, until_idle
from tests.engine.prompts import chain
from tests.engine.subprocesses import PATIENCE, Server, is_gone, serving
from tests.hostile_constraints import HOSTILE, TWO_HUNDRED, Fields, json_schema, tools

pytestmark = pytest.mark.engine

SECONDS = 2
"""CPU time for a grammar here, so that what takes longer is known soon."""

AT_ONCE = 6
LONGEST_STAY = 0.5
"""Seconds after which clients that leave have left."""

NOT_ASKED_BEFORE = (
    json_schema({**TWO_HUNDRED, "minProperties": 99, "maxProperties": 151}),
    json_schema({**TWO_HUNDRED, "minProperties": 98, "maxProperties": 152}),
    tools({**TWO_HUNDRED, "minProperties": 97, "maxProperties": 153}),
)
"""Grammars that take long, and of which nothing is known yet: what is found is remembered."""

HELD = ("multiples of 5", "multiples of 7", "allOf with enum")
ENDS = ("stop", "length", "tool_calls")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # A machine with too much to do is no engine that hangs.
    env = {
        "PROCTOR_GRAMMARS__SECONDS": str(SECONDS),
        "PROCTOR_LIMITS__STALL_SECONDS": str(PATIENCE),
    }
    with serving(tmp_path_factory.mktemp("server"), env=env) as server:
        yield server.ready()


def asked(fields: Fields, number: int = 3, **more: Any) -> dict[str, Any]:
    return {
        "model": "proctor-demo",
        "messages": [{"role": "user", "content": chain(Random(number), 3)}],
        "max_thinking_tokens": 8,
        "max_tokens": 96,
        **fields,
        **more,
    }


class Bystanders:
    """Clients that want nothing odd, while others do."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.served = 0

    async def plain(self, number: int) -> str:
        """A stream's text."""
        request = asked({}, number, temperature=0, max_thinking_tokens=200, stream=True)
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
        response = await self._http.post(CHAT, json=asked(json_object))
        assert response.status_code == 200, response.text

    async def signs(self) -> None:
        """What a load balancer and whoever restarts the process look at."""
        for path in ("/health", "/ready"):
            response = await self._http.get(path)
            assert response.status_code == 200, response.text

    async def again_and_again(self, alone: dict[int, str]) -> None:
        """One after the other, until they are told to stop."""
        while True:
            for number, text in alone.items():
                assert await self.plain(number) == text
                await self.any_object()
                await self.signs()
                self.served += 1


async def leave(http: httpx.AsyncClient, fields: Fields, seconds: float) -> None:
    """Ask, and be gone before there is an answer, as a rule."""
    try:
        async with asyncio.timeout(seconds):
            await http.post(CHAT, json=asked(fields))
    except TimeoutError:
        pass


async def check(http: httpx.AsyncClient, name: str) -> None:
    """See that one is answered, or refused by name."""
    fields = HOSTILE[name]
    response = await http.post(CHAT, json=asked(fields))
    told = response.json()
    if response.status_code == 200:
        for choice in told["choices"]:
            assert choice["finish_reason"] in ENDS, (name, choice)
        if name in HELD and told["choices"][0]["finish_reason"] == "stop":
            answer = json.loads(told["choices"][0]["message"]["content"])
            jsonschema.validate(answer, fields["response_format"]["json_schema"]["schema"])
        return
    assert response.status_code == 400, (name, told)
    named, code = told["error"]["param"], told["error"]["code"]
    if named is None:
        assert name == "200 levels"  # nested too deeply to be read at all
    elif code == "context_length_exceeded":
        assert "tools" in fields  # which are part of the prompt, and of a short context
    else:
        assert re.split(r"[.[]", named)[0] in fields, (name, told)


def compiling(process: psutil.Process) -> bool:
    """Whether a process is one that was forked for a grammar."""
    try:
        return process.nice() > 0
    except psutil.NoSuchProcess:
        return False


async def in_turns(work: list[Coroutine[Any, Any, None]]) -> None:
    """All of it, some at a time."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(each: Coroutine[Any, Any, None]) -> None:
        async with free:
            await each

    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(one(each))


async def test_all_of_them_are_answered_or_refused_and_nobody_else_is_hurt(server: Server) -> None:
    before = {process.pid for process in server.engine()}
    rng = Random(7)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=limits) as http:
        bystanders = Bystanders(http)
        alone = {number: await bystanders.plain(number) for number in (11, 12)}
        work = [check(http, name) for name in HOSTILE]
        work += [leave(http, each, rng.random() * LONGEST_STAY) for each in HOSTILE.values()]
        rng.shuffle(work)
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(bystanders.again_and_again(alone))
            await in_turns(work)
            beside.cancel()
        await bystanders.signs()
        assert {number: await bystanders.plain(number) for number in alone} == alone
        await until_idle(http)

    assert bystanders.served
    assert before
    assert {process.pid for process in server.engine()} == before
    assert not is_gone(server.process)


async def test_it_ends_when_it_is_told_to_while_they_run(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        asking = [
            asyncio.create_task(http.post(CHAT, json=asked(fields))) for fields in NOT_ASKED_BEFORE
        ]
        async with asyncio.timeout(PATIENCE):
            while not any(map(compiling, server.children())):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        server.process.terminate()
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0, server.text
        await asyncio.gather(*asking, return_exceptions=True)
