"""Rows of requests to the gateway, and feedback on them."""

import asyncio
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from proctor.server.accounting.ledger import service
from proctor.server.config.paths import state_folder
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.storage import database
from proctor.server.storage.database import connect
from proctor.server.storage.tables import texts
from tests.server.accounting.ledger.records import read_records
from tests.server.harness import (
    CHAT,
    Gate,
    body,
    client,
    parse_events,
    running_server,
    with_timeout,
)

pytestmark = pytest.mark.slow

FEEDBACK = "/v1/feedback"
PRICES = {"prompt": "1", "cached_prompt": "0.5", "thinking": "2", "answer": "4"}
TIERS = [{"name": "low", "min_tokens": 2, "max_tokens": 4}, {"name": "high", "max_tokens": 200}]
NAMES = {
    "efforts": dict.fromkeys(("none", "minimal", "low", "medium", "high", "xhigh", "max"), "high")
}
ROUTED = {"router": {"levels": dict.fromkeys(("none", "low", "medium", "high"), "low")}}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


async def test_a_response_is_recorded(url: str) -> None:
    engine = FakeEngine(Script(("abc",), "de"), cached_tokens=3)
    overrides = {"tiers": TIERS, "prices": PRICES, "ledger": {"url": url}, **NAMES, **ROUTED}
    async with client(engine, **overrides) as http:
        headers = {"x-request-id": "mine"}
        response = await http.post(CHAT, json=body(budget_tier="high"), headers=headers)
    answer = response.json()

    (row,) = await read_records(url)

    usage = answer["usage"]
    assert (row.id, row.request_id, row.model, row.key) == (answer["id"], "mine", "fake", None)
    assert (row.status, row.tier, row.source) == (200, "high", "explicit")
    assert abs(row.time - datetime.now(UTC)) < timedelta(minutes=1)
    assert (row.asked_min_tokens, row.asked_max_tokens) == (0, 200)
    assert (row.min_tokens, row.max_tokens, row.clamped_by) == (0, 200, "")
    assert (row.prompt_tokens, row.cached_tokens) == (usage["prompt_tokens"], 3)
    assert (row.thinking_tokens, row.forced_tokens, row.continuations) == (3, 0, 0)
    assert row.answer_tokens == 2
    assert row.completion_tokens == usage["completion_tokens"]
    assert (row.end_reason, row.finish_reason, row.choices) == ("natural", "stop", 1)
    first, second = row.first_reasoning_seconds, row.first_answer_seconds
    assert first is not None
    assert second is not None
    assert 0 < first <= second <= row.seconds
    assert row.cost is not None
    assert f"{row.cost.total:f}" == response.headers["x-cost"]
    assert row.cost.prompt == (row.prompt_tokens - 3 + Decimal("1.5")) / 1_000_000
    assert (row.score, row.texts) == (None, None)


async def test_choices_and_clamps_are_recorded(file: str) -> None:
    def script(job: object) -> Script:
        return Script(("a",), "x") if getattr(job, "id", "").endswith("0") else Script(("a" * 20,))

    overrides = {"tiers": TIERS, "ceilings": {"max_thinking_tokens": 6}, **NAMES, **ROUTED}
    async with client(FakeEngine(script), ledger={"url": file}, **overrides) as http:
        request = body(max_thinking_tokens=10, min_thinking_tokens=1, n=2, stream=True)
        streamed = await http.post(CHAT, json=request)

    (row,) = await read_records(file)

    assert row.id == parse_events(streamed.text)[0].data["id"]
    assert (row.tier, row.source, row.choices) == ("custom", "explicit", 2)
    assert (row.asked_max_tokens, row.max_tokens, row.clamped_by) == (10, 6, "operator")
    assert (row.asked_min_tokens, row.min_tokens) == (1, 1)
    assert (row.end_reason, row.finish_reason) == ("mixed", "stop")
    assert row.cost is None


async def test_a_disconnect_is_recorded(file: str) -> None:
    gate = Gate(5)
    engine = FakeEngine(Script(("thinking away",), "x"), before_token=gate)
    overrides = {"prices": PRICES, "ledger": {"url": file}}
    async with running_server(engine, **overrides) as url, httpx.AsyncClient(base_url=url) as http:
        request = http.build_request("POST", CHAT, json=body(stream=True))
        response = await http.send(request, stream=True)
        await with_timeout(gate.reached.wait())
        await response.aclose()
        await with_timeout(engine.aborted.get())

    (row,) = await read_records(file)

    assert (row.status, row.end_reason, row.finish_reason) == (499, "cancelled", "abort")
    assert (row.thinking_tokens, row.answer_tokens, row.first_answer_seconds) == (5, 0, None)
    assert row.cost is not None
    assert row.cost.thinking == Decimal(5 * 2) / 1_000_000


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_engine_failure_is_recorded(file: str, streamed: bool) -> None:
    async with client(FakeEngine(die_after=3), ledger={"url": file}) as http:
        await http.post(CHAT, json=body(stream=streamed))

    (row,) = await read_records(file)

    assert (row.status, row.thinking_tokens, row.finish_reason) == (503, 3, "abort")


async def test_refused_requests_are_not_recorded(file: str) -> None:
    async with client(FakeEngine(), ledger={"url": file}) as http:
        assert (await http.post(CHAT, json=body(model="other"))).status_code == 404
        assert (await http.post(CHAT, json=body(max_thinking_tokens=-7))).status_code == 400
        let_in = (await http.post(CHAT, json=body())).json()["id"]

    assert [row.id for row in await read_records(file)] == [let_in]


async def test_texts_are_not_stored_by_default(file: str, tmp_path: Path) -> None:
    secret = [{"role": "user", "content": "my secret question"}]
    engine = FakeEngine(Script(("a secret thought",), "a secret answer"))
    async with client(engine, ledger={"url": file}) as http:
        await http.post(CHAT, json=body(messages=secret))

    (row,) = await read_records(file)
    written = (tmp_path / "ledger.db").read_bytes()
    assert row.id.encode() in written
    assert not [text for text in (b"my secret", b"a secret") if text in written]


@pytest.mark.parametrize("streamed", [False, True])
async def test_texts_are_stored_if_enabled(file: str, streamed: bool) -> None:
    engine = FakeEngine(Script(("a thought",), "an answer"))
    async with client(engine, ledger={"url": file, "texts": True}) as http:
        await http.post(CHAT, json=body(stream=streamed, temperature=0))

    database = connect(file, reads_only=True)
    async with database.connect() as connection:
        stored = (await connection.execute(select(*list(texts.c)[1:]))).all()
    await database.dispose()

    expected = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}
    assert [(json.loads(request), *output) for request, *output in stored] == [
        (expected, "a thought", "an answer")
    ]


async def test_feedback_finds_the_row_of_a_response_just_sent(url: str) -> None:
    async with client(FakeEngine(), ledger={"url": url}) as http:
        first = (await http.post(CHAT, json=body())).json()["id"]
        by_id = await http.post(FEEDBACK, json={"request_id": first, "correct": True})
        second = (await http.post(CHAT, json=body())).headers["x-request-id"]
        by_request_id = await http.post(FEEDBACK, json={"request_id": second, "score": 0.25})

    assert by_id.json() == {"request_id": first, "score": 1.0}
    assert by_request_id.status_code == 200
    assert {row.score for row in await read_records(url)} == {1.0, 0.25}


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"request_id": "nobody", "correct": True}, 404, "request_id"),
        ({"request_id": "twice", "correct": True}, 400, "request_id"),
        ({"request_id": "twice"}, 400, "correct"),
        ({"request_id": "twice", "correct": True, "score": 1}, 400, "correct"),
        ({"request_id": "twice", "score": 1.5}, 400, "score"),
        ({"request_id": "twice", "correct": "yes"}, 400, "correct"),
        ({"correct": True}, 400, "request_id"),
    ],
)
async def test_invalid_feedback_is_refused(
    file: str, fields: dict[str, object], status: int, param: str
) -> None:
    async with client(FakeEngine(), ledger={"url": file}) as http:
        for _ in range(2):
            await http.post(CHAT, json=body(), headers={"x-request-id": "twice"})
        response = await http.post(FEEDBACK, json=fields)

    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_feedback_without_a_ledger() -> None:
    async with client(FakeEngine()) as http:
        response = await http.post(FEEDBACK, json={"request_id": "x", "correct": True})

    assert response.status_code == 404
    assert "ledger.url" in response.json()["error"]["message"]


async def test_a_locked_sqlite_file_loses_no_response_and_no_row(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CONNECT_SECONDS", 0.05)
    async with client(FakeEngine(), ledger={"url": file}) as http:
        before = (await http.post(CHAT, json=body())).json()["id"]
        assert (
            await http.post(FEEDBACK, json={"request_id": before, "correct": True})
        ).status_code == 200
        lock = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        answers = await with_timeout(
            asyncio.gather(*(http.post(CHAT, json=body()) for _ in range(20)))
        )
        monkeypatch.setattr(service, "PATIENCE_SECONDS", 0.3)
        rejected = await http.post(FEEDBACK, json={"request_id": before, "correct": False})
        waiting = (await http.get("/metrics")).text
        lock.rollback()
        lock.close()
        metrics = (await http.get("/metrics")).text

    assert {answer.status_code for answer in answers} == {200}
    assert "proctor_ledger_waiting 20.0" in waiting
    assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "5")
    ids = {before, *(answer.json()["id"] for answer in answers)}
    assert {row.id for row in await read_records(file)} == ids
    assert 'proctor_ledger_rows_total{fate="written"} 1.0' in metrics


async def test_the_ledger_is_only_accessible_to_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    folder = state_folder()
    folder.mkdir(mode=0o755)
    async with client(FakeEngine(), ledger={"url": f"sqlite:///{folder / 'ledger.db'}"}) as http:
        name = (await http.post(CHAT, json=body())).json()["id"]
        await http.post(FEEDBACK, json={"request_id": name, "correct": True})
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}

    assert folder.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}
    assert {"ledger.db", "ledger.db-wal"} <= {*modes}


async def test_the_mode_of_an_existing_file_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.touch(0o640)
    async with client(FakeEngine(), ledger={"url": f"sqlite:///{file}"}) as http:
        await http.post(CHAT, json=body())

    assert file.stat().st_mode & 0o777 == 0o640


def delete_all(folder: Path) -> None:
    for part in folder.iterdir():
        part.unlink()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_deleted_file_is_created_again(
    tmp_path: Path, replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows are not written to a file that was unlinked."""
    file = tmp_path / "ledger.db"
    url = f"sqlite:///{file}"
    async with client(FakeEngine(), ledger={"url": url}) as http:
        first = (await http.post(CHAT, json=body())).json()["id"]
        await http.post(FEEDBACK, json={"request_id": first, "correct": True})
        delete_all(tmp_path)
        if replaced:
            file.touch()
        second = (await http.post(CHAT, json=body())).json()["id"]
        feedback = await http.post(FEEDBACK, json={"request_id": second, "correct": True})

    assert feedback.status_code == 200, feedback.text
    assert [row.id for row in await read_records(url)] == [second]
    assert "was deleted or replaced" in caplog.text
