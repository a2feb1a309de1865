"""`proctor serve` when its engine is killed or hangs, and when it gets SIGTERM."""

import asyncio
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.engine.client import CHAT
from tests.engine.serve_process import (
    ENDLESS_TOKENS,
    LONG_CONTEXT,
    PATIENCE,
    SHORT,
    WORKER_PROCESS,
    Server,
    Stream,
    is_gone,
    serve_process,
    shared_memory,
    stop_cleanly,
    until_status,
)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with several engine processes, shared by these tests; the last one stops it."""
    with serve_process(
        tmp_path_factory.mktemp("server"), env=WORKER_PROCESS | LONG_CONTEXT
    ) as server:
        yield server.ready()


async def test_a_hanging_engine_is_detected_without_requests(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until_status(server, http, 200)
        for process in server.engine():
            process.send_signal(signal.SIGSTOP)
        await until_status(server, http, 503)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_killed_or_hanging_engine_is_restarted(
    server: Server, signal_number: signal.Signals
) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until_status(server, http, 200)
        processes = server.engine()
        segments = shared_memory(processes)
        assert processes
        assert segments
        streams = [Stream(ENDLESS_TOKENS) for _ in range(4)]
        reading = asyncio.gather(*(each.read(http) for each in streams))
        await asyncio.gather(*(each.begun.wait() for each in streams))
        for process in processes:
            process.send_signal(signal_number)
        await until_status(server, http, 503)
        refused = await http.post(CHAT, json=SHORT)
        await asyncio.wait_for(reading, PATIENCE)
        await until_status(server, http, 200)
        answer = await http.post(CHAT, json=SHORT)

    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    ends = [(each.status, each.name, each.data) for each in streams]
    assert {end[:2] for end in ends} == {(200, "error")}, ends
    assert all(each.data["error"]["type"] == "server_error" for each in streams)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    assert all(map(is_gone, processes))
    assert not {path for path in segments if path.exists()}


async def test_sigterm_lets_a_running_stream_finish(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until_status(server, http, 200)
        running = Stream()
        reading = asyncio.create_task(running.read(http))
        await running.begun.wait()
        stopping = asyncio.create_task(stop_cleanly(server, set(), len(server.text)))
        await reading
        await stopping

    assert (running.status, running.name) == (200, "")
    assert running.data["choices"][0]["finish_reason"] in ("stop", "length")
