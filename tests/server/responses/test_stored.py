"""Stored responses: continued, retrieved, deleted, and generated in the background."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.accounting.ledger.store import Store
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.storage.responses import ResponseStore
from tests.server.accounting.ledger.records import read_records
from tests.server.auth.keys import bearer, configured_key
from tests.server.harness import (
    Gate,
    client,
    parse_events,
    running_app,
    running_server,
    with_timeout,
)
from tests.server.responses.asking import RESPONSES, body, engine, sdk_of
from tests.server.responses.grammar import Parser

pytestmark = pytest.mark.slow

DONE = ("completed", "incomplete", "failed", "cancelled")


@pytest.fixture
async def ledger(url: str, store: Store) -> dict[str, Any]:
    return {"ledger": {"url": url}}


async def ended(http: httpx.AsyncClient, identifier: str) -> dict[str, Any]:
    """Poll a response until it has ended."""

    async def poll() -> dict[str, Any]:
        while True:
            found: dict[str, Any] = (await http.get(f"{RESPONSES}/{identifier}")).json()
            if found["status"] in DONE:
                return found
            await asyncio.sleep(0.05)

    found: dict[str, Any] = await with_timeout(poll())
    return found


async def recorded(url: str) -> list[LedgerRecord]:
    """Return the rows of the ledger, once there are any."""
    while True:
        if rows := await read_records(url):
            return rows
        await asyncio.sleep(0.05)


async def resume(http: httpx.AsyncClient, identifier: str, after: int | None = None) -> str:
    params = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    response = await with_timeout(http.get(f"{RESPONSES}/{identifier}", params=params))
    assert response.status_code == 200, response.text
    return str(response.text)


@asynccontextmanager
async def two_gateways(over: FakeEngine, **fields: Any) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Yield the clients of two gateways on one database; the first has the engine."""
    async with client(over, **fields) as one, client(FakeEngine(), **fields) as other:
        yield [one, other]


def prompt(job: Job) -> bytes:
    return bytes(token for token in job.prompt_ids if token < 256)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_continued_by_its_id(stream: bool, ledger: dict[str, Any]) -> None:
    over = FakeEngine(Script(("seven..",), "first answer"))
    async with client(over, **ledger) as http:
        first = await http.post(RESPONSES, json=body(input="one", stream=stream))
        response = Parser(first.text).last if stream else first.json()
        second = await http.post(
            RESPONSES,
            json=body(input="two", previous_response_id=response["id"], instructions="Be brief."),
        )
        third = await http.post(
            RESPONSES, json=body(input="three", previous_response_id=second.json()["id"])
        )

    assert response["store"]
    assert second.json()["previous_response_id"] == response["id"]
    assert third.status_code == 200
    texts = prompt(over.jobs[2])
    assert [text in texts for text in (b"one", b"first answer", b"two", b"three")] == [True] * 4
    assert b"Be brief." not in texts


async def test_a_continued_turn_has_one_budget(ledger: dict[str, Any]) -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
    over = engine(Script(("seven..",), call))
    tool = {"type": "function", "name": "add", "parameters": {"type": "object"}}
    fields = {"tools": [tool], "max_thinking_tokens": 10, "reasoning": {"exclude": True}}
    async with client(over, **ledger) as http:
        first = (await http.post(RESPONSES, json=body(**fields))).json()
        output = {
            "type": "function_call_output",
            "call_id": first["output"][-1]["call_id"],
            "output": "3",
        }
        again = body(input=[output], previous_response_id=first["id"], **fields)
        second = await http.post(RESPONSES, json=again)

    assert second.status_code == 200, second.text
    assert [job.budget.maximum for job in over.jobs] == [10, 3]


async def test_items_are_found_by_reference(ledger: dict[str, Any]) -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
    over = engine(Script(("seven..",), call))
    tool = {"type": "function", "name": "add", "parameters": {"type": "object"}}
    fields = {"tools": [tool], "max_thinking_tokens": 10}
    async with client(over, **ledger) as http:
        first = (await http.post(RESPONSES, json=body(input="one", **fields))).json()
        output = {
            "type": "function_call_output",
            "call_id": first["output"][-1]["call_id"],
            "output": "3",
        }
        references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
        question = {"role": "user", "content": "one"}
        by_reference = body(input=[question, *references, output], **fields)
        in_full = body(input=[question, *first["output"], output], **fields)
        answers = [await http.post(RESPONSES, json=each) for each in (by_reference, in_full)]
        unknown = [{"type": "item_reference", "id": f"fc_{'0' * 34}"}]
        refused = await http.post(RESPONSES, json=body(input=unknown))

    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert over.jobs[1].prompt_ids == over.jobs[2].prompt_ids
    assert [job.budget.maximum for job in over.jobs] == [10, 3, 3]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[0].id")


async def test_a_stored_response_is_retrieved_and_deleted(ledger: dict[str, Any]) -> None:
    async with client(FakeEngine(), **ledger) as http:
        created = (await http.post(RESPONSES, json=body())).json()
        path = f"{RESPONSES}/{created['id']}"
        retrieved = await http.get(path)
        streamed = await http.get(path, params={"stream": "true"})
        cancelled = await http.post(f"{path}/cancel")
        deleted = await http.delete(path)
        statuses = [(await http.get(path)).status_code, (await http.delete(path)).status_code]
        continued = await http.post(RESPONSES, json=body(previous_response_id=created["id"]))

    assert retrieved.json() == created
    assert streamed.json()["error"]["param"] == "stream"
    assert cancelled.status_code == 400
    assert deleted.json() == {"id": created["id"], "object": "response", "deleted": True}
    assert statuses == [404, 404]
    assert continued.json()["error"]["code"] == "previous_response_not_found"


async def test_a_response_that_is_not_to_be_stored_is_not(ledger: dict[str, Any]) -> None:
    async with client(FakeEngine(), **ledger) as http:
        created = (await http.post(RESPONSES, json=body(store=False))).json()
        missing = await http.get(f"{RESPONSES}/{created['id']}")

    assert not created["store"]
    assert missing.status_code == 404


async def test_a_response_that_is_too_long_is_not_stored(
    ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor.server.renderers.openai_responses.MAX_STORED_BYTES", 100)
    async with client(FakeEngine(), **ledger) as http:
        created = (await http.post(RESPONSES, json=body(store=True))).json()
        missing = await http.get(f"{RESPONSES}/{created['id']}")

    assert not created["store"]
    assert missing.status_code == 404


async def test_a_conversation_that_is_too_long_for_the_background_is_refused(
    ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor.server.api.generation.response_archive.MAX_STORED_BYTES", 100)
    async with client(FakeEngine(), **ledger) as http:
        refused = await http.post(RESPONSES, json=body(background=True))

    assert refused.status_code == 400
    assert "50 bytes" in refused.json()["error"]["message"]


async def test_a_disconnect_aborts_a_response_that_was_to_be_stored(
    ledger: dict[str, Any],
) -> None:
    gate = Gate(5)
    over = FakeEngine(before_token=gate)
    async with running_server(over, **ledger) as url, httpx.AsyncClient(base_url=url) as http:
        request = http.build_request("POST", RESPONSES, json=body(stream=True))
        response = await http.send(request, stream=True)
        await with_timeout(gate.reached.wait())
        await response.aclose()
        aborted = await with_timeout(over.aborted.get())

    assert aborted == over.jobs[0].id


async def test_expired_responses_are_gone(ledger: dict[str, Any]) -> None:
    ledger["ledger"]["response_hours"] = 1e-9
    async with client(FakeEngine(), **ledger) as http:
        created = (await http.post(RESPONSES, json=body())).json()
        missing = await http.get(f"{RESPONSES}/{created['id']}")

    assert missing.status_code == 404


async def test_each_key_has_its_own_responses(ledger: dict[str, Any]) -> None:
    (ada, ada_token), (bob, bob_token) = configured_key("ada"), configured_key("bob")
    headers, foreign = bearer(ada_token), bearer(bob_token)
    async with client(FakeEngine(), keys=[ada, bob], **ledger) as http:
        created = await http.post(RESPONSES, json=body(), headers=headers)
        path = f"{RESPONSES}/{created.json()['id']}"
        own = await http.get(path, headers=headers)
        others = [
            await http.get(path, headers=foreign),
            await http.delete(path, headers=foreign),
            await http.post(f"{path}/cancel", headers=foreign),
            await http.get(f"{path}/input_items", headers=foreign),
        ]
        again = body(previous_response_id=created.json()["id"])
        continued = await http.post(RESPONSES, json=again, headers=foreign)

    assert own.status_code == 200
    assert {each.status_code for each in others} == {404}
    assert continued.status_code == 400


async def test_the_items_before_a_response(ledger: dict[str, Any]) -> None:
    items = [
        {"role": "user", "content": "one"},
        {"type": "message", "role": "assistant", "id": "mine", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    async with client(FakeEngine(), **ledger) as http:
        created = (await http.post(RESPONSES, json=body(input=items))).json()
        path = f"{RESPONSES}/{created['id']}/input_items"
        newest = (await http.get(path, params={"limit": "2"})).json()
        oldest = (await http.get(path, params={"order": "asc", "after": "mine"})).json()
        invalid = await http.get(path, params={"after": "x"})
        listed = [item async for item in sdk_of(http).responses.input_items.list(created["id"])]

    assert [item["content"][0]["text"] for item in newest["data"]] == ["three", "two"]
    assert (newest["has_more"], newest["last_id"]) == (True, "mine")
    assert [item["content"][0]["text"] for item in oldest["data"]] == ["three"]
    assert not oldest["has_more"]
    assert invalid.status_code == 400
    assert len(listed) == 3


@pytest.mark.parametrize(
    "fields", [{"background": True}, {"previous_response_id": "resp_1"}], ids=str
)
@pytest.mark.parametrize("overrides", [{}, {"response_hours": 0}], ids=str)
async def test_without_a_store_what_needs_one_is_refused(
    fields: dict[str, Any], overrides: dict[str, Any], url: str, store: Store
) -> None:
    settings = {"ledger": {"url": url, **overrides}} if overrides else {}
    async with client(FakeEngine(), **settings) as http:
        refused = await http.post(RESPONSES, json=body(**fields))
        stored = await http.post(RESPONSES, json=body(store=True))
        missing = await http.get(f"{RESPONSES}/resp_1")

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] in fields
    assert "ledger.response_hours" in refused.json()["error"]["message"]
    assert (stored.status_code, stored.json()["store"]) == (200, False)
    assert stored.headers["x-ignored-fields"] == "store"
    assert missing.status_code == 404


async def test_a_background_response_is_polled_at_any_gateway(ledger: dict[str, Any]) -> None:
    gate = Gate(5)
    over = FakeEngine(Script(("thinking",), "Yes."), before_token=gate)
    async with two_gateways(over, **ledger) as (one, other):
        created = (await one.post(RESPONSES, json=body(background=True))).json()
        await with_timeout(gate.reached.wait())
        running = (await other.get(f"{RESPONSES}/{created['id']}")).json()
        early = await other.post(RESPONSES, json=body(previous_response_id=created["id"]))
        gate.opened.set()
        response = await ended(other, created["id"])
        late = await other.post(RESPONSES, json=body(previous_response_id=created["id"]))

    assert (created["status"], created["background"], created["store"]) == ("queued", True, True)
    assert running["status"] in ("queued", "in_progress")
    assert early.status_code == 400
    assert response["status"] == "completed"
    assert response["output"][-1]["content"][0]["text"] == "Yes."
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] == 8
    assert late.status_code == 200
    (record, _) = await read_records(ledger["ledger"]["url"])
    assert (record.status, record.thinking_tokens) == (200, 8)


async def test_a_background_stream_is_resumed_at_any_gateway(ledger: dict[str, Any]) -> None:
    gate = Gate(12)
    over = FakeEngine(Script(("thinking",), "A long answer."), before_token=gate)
    async with two_gateways(over, **ledger) as (one, other):
        asking = asyncio.create_task(one.post(RESPONSES, json=body(background=True, stream=True)))
        await with_timeout(gate.reached.wait())
        gate.opened.set()
        whole = (await with_timeout(asking)).text
        parser = Parser(whole)
        replayed = await resume(other, parser.last["id"])
        number = parse_events(whole)[4].data["sequence_number"]
        rest = await resume(other, parser.last["id"], after=number)

    assert parser.last["status"] == "completed"
    assert replayed == whole
    assert parse_events(rest) == parse_events(whole)[5:]


async def test_a_background_response_outlives_the_connection(ledger: dict[str, Any]) -> None:
    gate = Gate(5)
    over = FakeEngine(Script(("thinking",), "Yes."), before_token=gate)
    async with running_app(over, **ledger) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            created = (await http.post(RESPONSES, json=body(background=True))).json()
            following = asyncio.create_task(resume(http, created["id"]))
            await with_timeout(gate.reached.wait())
            following.cancel()
            gate.opened.set()
            response = await ended(http, created["id"])

    assert response["status"] == "completed"
    assert over.aborted.empty()


async def test_a_background_response_is_cancelled_at_any_gateway(ledger: dict[str, Any]) -> None:
    gate = Gate(12)
    over = FakeEngine(Script(("thinking",), "A long answer."), before_token=gate)
    async with two_gateways(over, **ledger) as (one, other):
        created = (await one.post(RESPONSES, json=body(background=True))).json()
        await with_timeout(gate.reached.wait())
        path = f"{RESPONSES}/{created['id']}"
        cancelled = await other.post(f"{path}/cancel")
        aborted = await with_timeout(over.aborted.get())
        again = await other.post(f"{path}/cancel")
        stream = await resume(other, created["id"])
        response = await ended(one, created["id"])
        rows = await recorded(ledger["ledger"]["url"])

    assert {cancelled.json()["status"], again.json()["status"]} == {"cancelled"}
    assert aborted == over.jobs[0].id
    assert parse_events(stream)[-1].data["response"]["status"] == "cancelled"
    assert response["status"] == "cancelled"
    assert [row.status for row in rows] == [499]


async def test_a_background_response_that_is_deleted_is_cancelled(ledger: dict[str, Any]) -> None:
    gate = Gate(3)
    over = FakeEngine(before_token=gate)
    async with client(over, **ledger) as http:
        created = (await http.post(RESPONSES, json=body(background=True))).json()
        await with_timeout(gate.reached.wait())
        await http.delete(f"{RESPONSES}/{created['id']}")
        await with_timeout(over.aborted.get())
        missing = await http.get(f"{RESPONSES}/{created['id']}")

    assert missing.status_code == 404


async def test_a_background_response_fails_with_its_engine(ledger: dict[str, Any]) -> None:
    async with client(FakeEngine(die_after=4), **ledger) as http:
        created = (await http.post(RESPONSES, json=body(background=True))).json()
        response = await ended(http, created["id"])
        stream = await resume(http, created["id"])

    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert Parser(stream).last == response


async def test_a_gateway_that_stops_ends_its_background_responses(ledger: dict[str, Any]) -> None:
    gate = Gate(3)
    async with client(FakeEngine(before_token=gate), **ledger) as http:
        created = (await http.post(RESPONSES, json=body(background=True))).json()
        await with_timeout(gate.reached.wait())
    async with client(FakeEngine(), **ledger) as http:
        response = (await http.get(f"{RESPONSES}/{created['id']}")).json()
        stream = await resume(http, created["id"])

    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert Parser(stream).last["status"] == "failed"


async def test_the_deadline_applies_in_the_background(ledger: dict[str, Any]) -> None:
    over = FakeEngine(before_token=Gate(3))
    async with client(over, **ledger) as http:
        created = await http.post(
            RESPONSES, json=body(background=True), headers={"x-request-timeout": "0.2"}
        )
        response = await ended(http, created.json()["id"])

    assert response["status"] == "failed"
    assert "did not finish" in response["error"]["message"]


async def test_events_are_stored_after_an_outage(
    ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, failed = Gate(5), asyncio.Event()
    errors = iter([OSError("away"), OSError("away")])
    append = ResponseStore.append

    async def fail_or_append(*arguments: Any) -> bool:
        for error in errors:
            raise error
        failed.set()
        return await append(*arguments)

    monkeypatch.setattr(ResponseStore, "append", fail_or_append)
    over = FakeEngine(Script(("thinking",), "Yes."), before_token=gate)
    async with client(over, **ledger) as http:
        created = (await http.post(RESPONSES, json=body(background=True))).json()
        await with_timeout(failed.wait())
        gate.opened.set()
        response = await ended(http, created["id"])
        stream = await resume(http, created["id"])

    assert response["status"] == "completed"
    assert Parser(stream).items == response["output"]


async def test_background_requires_store(ledger: dict[str, Any]) -> None:
    async with client(FakeEngine(), **ledger) as http:
        refused = await http.post(RESPONSES, json=body(background=True, store=False))

    assert refused.json()["error"]["param"] == "background"


async def test_the_sdk_polls_cancels_and_resumes(ledger: dict[str, Any]) -> None:
    async with client(FakeEngine(Script(("Hm.",), "Yes.")), **ledger) as http:
        responses = sdk_of(http).responses
        created = await responses.create(model="fake", input="hi", background=True)
        await ended(http, created.id)
        retrieved = await responses.retrieve(created.id)
        events = [event async for event in await responses.retrieve(created.id, stream=True)]
        ended_before = await responses.cancel(created.id)
        await responses.delete(created.id)
        with pytest.raises(openai.NotFoundError):
            await responses.retrieve(created.id)

    assert retrieved.output_text == "Yes."
    assert events[-1].type == "response.completed"
    assert ended_before.status == "completed"


async def test_a_repeated_background_request_runs_once(ledger: dict[str, Any]) -> None:
    over = FakeEngine()
    async with client(over, **ledger) as http:
        ask: dict[str, Any] = {
            "json": body(background=True),
            "headers": {"idempotency-key": "mine"},
        }
        first = (await http.post(RESPONSES, **ask)).json()
        again = (await http.post(RESPONSES, **ask)).json()
        await ended(http, first["id"])

    assert again["id"] == first["id"]
    assert len(over.jobs) == 1
