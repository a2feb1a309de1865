import asyncio
from typing import Any

import httpx
import orjson
import pytest

from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import CHAT, Gate, body, running_app, running_server, with_timeout

MESSAGE = {
    "model": "fake",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "x"}],
    "thinking": {"type": "enabled", "budget_tokens": 100},
}


@pytest.mark.parametrize(
    ("path", "fields"),
    [(CHAT, body(n=2)), ("/v1/responses", {"input": "x"}), ("/v1/messages", MESSAGE)],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_disconnect_aborts_the_jobs(
    path: str, fields: dict[str, Any], streamed: bool
) -> None:
    gate = Gate(5)
    engine = FakeEngine(Script(("thinking away",), "x"), before_token=gate)

    async with running_server(engine) as url, httpx.AsyncClient(base_url=url) as http:
        request = http.build_request("POST", path, json={**fields, "stream": streamed})
        if streamed:
            response = await http.send(request, stream=True)
            await with_timeout(gate.reached.wait())
            await response.aclose()
        else:
            leaving = asyncio.create_task(http.send(request))
            await with_timeout(gate.reached.wait())
            leaving.cancel()
        aborted = {await with_timeout(engine.aborted.get()) for _ in engine.jobs}
        metrics = (await http.get("/metrics")).text

    assert aborted == {job.id for job in engine.jobs}
    tokens = 5.0 * len(engine.jobs)
    assert (
        f'proctor_thinking_tokens_sum{{end_reason="cancelled",tier="custom"}} {tokens}' in metrics
    )


async def test_a_cancelled_request_is_counted_as_cancelled() -> None:
    gate = Gate(1)

    async with (
        running_server(FakeEngine(before_token=gate)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        response = await http.send(
            http.build_request("POST", CHAT, json=body(stream=True)), stream=True
        )
        await with_timeout(gate.reached.wait())
        await response.aclose()
        counted = 'proctor_requests_total{end_reason="cancelled",status="499",tier="custom"} 1.0'
        while "proctor_in_flight 0.0" not in (metrics := (await http.get("/metrics")).text):
            pass

    assert counted in metrics


async def test_a_client_that_reads_nothing_is_disconnected() -> None:
    engine = FakeEngine(Script(("Let me see.",), "42"), before_token=Gate(6))
    messages = [{"type": "http.request", "body": orjson.dumps(body(stream=True))}]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    sent = 0

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(_: Any) -> None:
        nonlocal sent
        sent += 1
        if sent > 3:
            await asyncio.Event().wait()

    async with running_app(engine, limits={"send_timeout_seconds": 0.05}) as app:
        await with_timeout(app(scope, receive, send))
        name = await with_timeout(engine.aborted.get())

    assert name == engine.jobs[0].id
