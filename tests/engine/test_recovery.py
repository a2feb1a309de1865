"""`proctor serve` while its engine is killed, hangs, and while it is told to stop."""

import asyncio
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.engine.asking import CHAT
from tests.engine.subprocesses import (
    PATIENCE,
    SHORT,
    Server,
    Stream,
    ended_cleanly,
    is_gone,
    serving,
    shared_memory,
    until,
)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that every test here strikes, and that the last one ends."""
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server.ready()


async def test_an_engine_that_hangs_is_noticed_though_nobody_asks(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until(http, 200)
        for victim in server.engine():
            victim.send_signal(signal.SIGSTOP)
        await until(http, 503)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_service_resumes(server: Server, blow: signal.Signals) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until(http, 200)
        struck = server.engine()
        held = shared_memory(struck)
        assert struck
        assert held
        streams = [Stream(choices=8) for _ in range(4)]  # which take their time
        reading = asyncio.gather(*(each.read(http) for each in streams))
        await asyncio.gather(*(each.begun.wait() for each in streams))
        for victim in struck:
            victim.send_signal(blow)
        await until(http, 503)
        refused = await http.post(CHAT, json=SHORT)
        await asyncio.wait_for(reading, PATIENCE)
        await until(http, 200)
        answer = await http.post(CHAT, json=SHORT)

    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    ends = [(each.status, each.name, each.data) for each in streams]
    assert {end[:2] for end in ends} == {(200, "error")}, ends
    assert all(each.data["error"]["type"] == "server_error" for each in streams)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    assert all(map(is_gone, struck))
    assert not {path for path in held if path.exists()}


async def test_a_server_told_to_stop_ends_what_runs(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until(http, 200)
        running = Stream()
        reading = asyncio.create_task(running.read(http))
        await running.begun.wait()
        ending = asyncio.create_task(ended_cleanly(server, set(), len(server.text)))
        await reading
        await ending

    assert (running.status, running.name) == (200, "")
    assert running.data["choices"][0]["finish_reason"] in ("stop", "length")
