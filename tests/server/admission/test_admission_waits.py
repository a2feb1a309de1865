"""Admission is cancelled when the client disconnects or the timeout expires."""

import asyncio

import httpx
import pytest

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine
from tests.server.harness import CHAT, advance_clock, body, client, running_server, with_timeout

PROMPT = {"model": "fake", "prompt": "hi", "max_tokens": 4}
PATHS = pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, body()),
        (CHAT, body(stream=True)),
        ("/v1/completions", PROMPT),
        ("/v1/route", body()),
    ],
)


class LookingEngine(FakeEngine):
    """An engine whose check of a request never returns."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.stopped = asyncio.Event()
        self.owners: list[str] = []

    async def check(self, job: Job) -> None:
        self.owners.append(job.owner)
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


@PATHS
async def test_a_disconnect_cancels_the_admission(path: str, fields: dict[str, object]) -> None:
    engine = LookingEngine()
    async with running_server(engine) as url, httpx.AsyncClient(base_url=url) as http:
        sending = asyncio.create_task(http.post(path, json=fields))
        await with_timeout(engine.began.wait())
        sending.cancel()
        await with_timeout(engine.stopped.wait())
        metrics = (await http.get("/metrics")).text

    assert engine.owners == [""]
    assert not engine.jobs
    assert 'status="500"' not in metrics


@PATHS
async def test_the_timeout_cancels_the_admission(path: str, fields: dict[str, object]) -> None:
    engine = LookingEngine()
    async with client(engine) as http:
        sending = http.post(path, json=fields, headers={"x-request-timeout": "1000"})
        asking = asyncio.create_task(sending)
        await with_timeout(engine.began.wait())
        advance_clock(1000)
        response = await with_timeout(asking)

    assert response.status_code == 504
    assert engine.stopped.is_set()
