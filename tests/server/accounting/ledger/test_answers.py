"""What the router learns from in the ledger."""

from datetime import timedelta
from typing import Any

import orjson

from proctor.router import Conversation, Turn
from proctor.router.learning.answers import Answer, Ending
from proctor.server.accounting.ledger.answers import read_answers, read_conversation
from proctor.server.accounting.ledger.records import LedgerRecord, RecordedTexts
from proctor.server.accounting.ledger.store import Store
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.storage.database import connect
from tests.server.accounting.ledger.records import NOON, make_record
from tests.server.harness import CHAT, body, client

TIERS = ("none", "low", "medium", "high")


def row(name: object, text: str = "hi", **fields: Any) -> LedgerRecord:
    request = orjson.dumps({"messages": [{"role": "user", "content": text}]}).decode()
    return make_record(name, texts=RecordedTexts(request, "", ""), **fields)


async def read(url: str, *rows: LedgerRecord) -> list[Answer]:
    store = Store(connect(url))
    await store.migrate()
    if rows:
        await store.write(rows)
    try:
        return await read_answers(store.engine, TIERS)
    finally:
        await store.aclose()


async def test_rows_with_texts_become_answers(url: str) -> None:
    (answer,) = await read(url, row(1, "What is 2 + 3?", score=0.5, end_reason="max"))
    assert answer.conversation == Conversation.of("What is 2 + 3?")
    assert (answer.tier, answer.tokens, answer.score) == ("low", 30, 0.5)
    assert answer.ending is Ending.CAPPED
    assert answer.time == NOON.timestamp()


async def test_what_says_nothing_about_a_tier_is_left_out(url: str) -> None:
    assert not await read(
        url,
        make_record(1),
        row(2, status=500),
        row(3, choices=2),
        row(4, clamped_by="key"),
        row(5, tier="custom"),
        row(6, finish_reason="abort"),
        make_record(7, texts=RecordedTexts('{"prompt": "raw"}', "", "")),
        make_record(8, texts=RecordedTexts("{", "", "")),
    )


async def test_a_request_that_was_sent_again_was_not_answered_well(url: str) -> None:
    minute = timedelta(minutes=1)
    found = await read(
        url,
        row(1, "one"),
        row(2, "one", time=NOON + minute),
        row(3, "one", time=NOON + 20 * minute),
        row(4, "two"),
        row(5, "two", time=NOON + minute, key="another"),
    )
    endings = {(each.conversation.prompt, each.time - NOON.timestamp()): each for each in found}
    repeated = [key for key, each in endings.items() if each.ending is Ending.REPEATED]
    assert repeated == [("one", 0.0)]


async def test_stored_requests_are_seen_as_the_router_saw_them(url: str) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Prove it."}]},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Why?"},
    ]
    ledger = {"url": url, "texts": True}
    async with client(FakeEngine(Script(("abc",), "de")), ledger=ledger) as http:
        request = body(messages=messages, budget_tier="low")
        response = await http.post(CHAT, json=request)
        feedback = {"request_id": response.json()["id"], "correct": True}
        assert (await http.post("/v1/feedback", json=feedback)).is_success

    (answer,) = await read(url)

    roles = ("system", "user", "assistant", "user")
    texts = ("Be brief.", "Prove it.", "Done.", "Why?")
    turns = tuple(Turn(role, text) for role, text in zip(roles, texts, strict=True))
    assert answer.conversation == Conversation(turns)
    assert (answer.tier, answer.score) == ("low", 1.0)


def test_tools_are_counted() -> None:
    stored = orjson.dumps({"messages": [{"role": "user", "content": "hi"}], "tools": [{}, {}]})
    conversation = read_conversation(stored.decode())
    assert conversation is not None
    assert conversation.tools == 2


def test_a_request_that_cannot_be_read_is_none() -> None:
    assert read_conversation("[]") is None
    assert read_conversation('{"messages": [{"role": "nobody"}]}') is None
