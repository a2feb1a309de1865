"""Rows when the server or its database is killed or stopped."""

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from proctor.server.engines.fake import FakeEngine
from proctor.server.storage.database import sqlite_file
from tests.server.accounting.ledger.postgres import Cluster
from tests.server.accounting.ledger.records import read_records
from tests.server.harness import CHAT, body, client, with_timeout
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[4]
SERVER = """
import asyncio, random
import proctor.server.cli.main, proctor.server.cli.serve
from proctor.server.engines.fake import FakeEngine, Script

async def work(job, position):
    await asyncio.sleep(random.random() * 0.002)

proctor.server.cli.serve.load_engine = lambda settings: FakeEngine(
    Script(("thinking about it",), "an answer"), before_token=work
)
raise SystemExit(proctor.server.cli.main.main(["serve", "--port", "0", "--model", "fake"]))
"""
STREAMS = 16
MIN_ANSWERS = 64
"""The number of responses before the server is killed or stopped."""


@asynccontextmanager
async def serving(ledger: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a server in a separate process; yield the process and its URL."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PROCTOR_LEDGER__URL": ledger}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        output = ""
        while "curl" not in output:
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            assert line, "the server ended"
            output += line
        url = re.search(r"http://127\.0\.0\.1:\d+", output)
        assert url is not None
        yield process, url[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def load(url: str, answered: list[str]) -> None:
    """Send requests without a pause until one fails, and collect the ids of complete responses."""
    async with httpx.AsyncClient(base_url=url) as http:
        while True:
            try:
                async with http.stream("POST", CHAT, json=body(stream=True)) as response:
                    text = (await response.aread()).decode()
            except httpx.HTTPError:
                return
            if text.endswith("data: [DONE]\n\n"):
                answered.append(text.split('"id":"', 1)[1].split('"', 1)[0])


async def wait_until_written(url: str, names: set[str]) -> None:
    """Wait, under load, until these rows are written."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if names <= {row.id for row in await read_records(url)}:
                return
            await asyncio.sleep(0.05)


async def wait_for_answers(answered: list[str], clients: list[asyncio.Task[None]]) -> None:
    """Wait for `MIN_ANSWERS` complete responses."""
    async with asyncio.timeout(PATIENCE):
        while len(answered) < MIN_ANSWERS:
            await asyncio.wait(clients, timeout=0.05)


async def test_a_killed_server_loses_no_row_that_was_written(url: str) -> None:
    """Rows are written under load, not only once it ends."""
    answered: list[str] = []
    async with serving(url) as (process, server):
        clients = [asyncio.create_task(load(server, answered)) for _ in range(STREAMS)]
        await wait_for_answers(answered, clients)
        old = {*answered}
        await wait_until_written(url, old)
        assert not any(each.done() for each in clients), "there was no load at the end"
        process.send_signal(signal.SIGKILL)
        await asyncio.gather(*clients)

    kept = [row.id for row in await read_records(url)]

    assert len(old) >= MIN_ANSWERS
    assert old <= {*kept}
    assert len(kept) == len({*kept})
    if (file := sqlite_file(url)) is not None:
        with contextlib.closing(sqlite3.connect(file)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_stopped_server_loses_no_row(url: str) -> None:
    answered: list[str] = []
    async with serving(url) as (process, server):
        clients = [asyncio.create_task(load(server, answered)) for _ in range(STREAMS)]
        await wait_for_answers(answered, clients)
        process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0

    assert {*answered} <= {row.id for row in await read_records(url)}


async def test_a_database_outage_loses_no_response_and_no_row(postgres: Cluster) -> None:
    url = postgres.create("outage")
    feedback = {"correct": True}
    async with client(FakeEngine(), ledger={"url": url}) as http:
        before = (await http.post(CHAT, json=body())).json()["id"]
        accepted = await http.post("/v1/feedback", json={"request_id": before, **feedback})
        await asyncio.to_thread(postgres.stop)
        try:
            answers = await with_timeout(
                asyncio.gather(*(http.post(CHAT, json=body()) for _ in range(100)))
            )
            rejected = await http.post("/v1/feedback", json={"request_id": before, **feedback})
        finally:
            await asyncio.to_thread(postgres.start)

    assert accepted.status_code == 200
    assert {answer.status_code for answer in answers} == {200}
    assert rejected.status_code == 503
    ids = {before, *(answer.json()["id"] for answer in answers)}
    assert {row.id for row in await read_records(url)} == ids


async def test_a_server_starts_without_its_database(postgres: Cluster) -> None:
    url = postgres.create("late")
    await asyncio.to_thread(postgres.stop)
    try:
        async with serving(url) as (process, server):
            async with httpx.AsyncClient(base_url=server) as http:
                answer = (await http.post(CHAT, json=body())).json()
            await asyncio.to_thread(postgres.start)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        with contextlib.suppress(AssertionError):  # it is already running
            await asyncio.to_thread(postgres.start)

    assert [row.id for row in await read_records(url)] == [answer["id"]]
