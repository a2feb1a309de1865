"""Reads answers from the ledger for the router to learn from."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.router import Conversation, Turn
from proctor.router.learning.answers import MAX_ANSWERS, Answer, Ending
from proctor.server.engines.base import Finish
from proctor.server.schemas.messages import Message
from proctor.server.storage.tables import requests, texts

REPEATED_WITHIN = timedelta(minutes=10)
"""A request that the same key sends again in this time was probably not answered well."""

_MESSAGES = TypeAdapter(list[Message])


async def read_answers(engine: AsyncEngine, tiers: tuple[str, ...]) -> list[Answer]:
    """Return the newest answers of these tiers whose texts are stored, oldest first.

    Left out are requests with several choices, raw prompts, clamped budgets, and answers that
    failed or were cancelled.
    """
    columns = requests.c
    query = (
        select(
            columns.time,
            columns.key,
            columns.tier,
            columns.thinking_tokens,
            columns.end_reason,
            columns.finish_reason,
            columns.score,
            texts.c.request,
        )
        .join(texts, texts.c.id == columns.id)
        .where(
            columns.status == 200,
            columns.choices == 1,
            columns.clamped_by == "",
            columns.tier.in_(tiers),
            columns.finish_reason != Finish.ABORT.value,
        )
        .order_by(columns.time.desc())
        .limit(MAX_ANSWERS)
    )
    answers: list[Answer] = []
    later: dict[tuple[str | None, str], Any] = {}
    async with engine.connect() as connection:
        async for row in await connection.stream(query):
            again = later.get((row.key, row.request))
            later[row.key, row.request] = row.time
            conversation = read_conversation(row.request)
            if conversation is not None:
                repeated = again is not None and again - row.time <= REPEATED_WITHIN
                answers.append(_answer(row, conversation, repeated=repeated))
    return answers[::-1]


def _answer(row: Any, conversation: Conversation, *, repeated: bool) -> Answer:
    return Answer(
        conversation,
        row.tier,
        row.thinking_tokens,
        Ending.of(row.end_reason, row.finish_reason, repeated=repeated),
        row.time.timestamp(),
        row.score,
    )


def read_conversation(stored: str) -> Conversation | None:
    """Return the conversation of a stored request as the router sees it.

    It is None for a raw prompt, and for a request that cannot be read any more.
    """
    try:
        request = orjson.loads(stored)
        messages = _MESSAGES.validate_python(request["messages"])
    except (KeyError, TypeError, ValidationError, orjson.JSONDecodeError):
        return None
    turns = tuple(Turn(message.role, message.text) for message in messages)
    return Conversation(turns, tools=_count(request, "tools"))


def _count(request: Mapping[str, Any], field: str) -> int:
    return len(request.get(field) or ())
