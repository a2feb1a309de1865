"""The fields of a request that name its session and set its limits."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from proctor.server.config.limits import SESSION_ID
from proctor.server.schemas.base import Count, Float, Int, RequestModel, Text

CLAUDE_CODE_USER = re.compile(
    r'_session_(?P<plain>[0-9a-f-]{36})$|"session_id": ?"(?P<json>[^"]+)"'
)
"""The session in the `metadata.user_id` of Claude Code, in its older and in its newer format."""


class SessionFields(RequestModel):
    """The session that a request belongs to, and limits for all its requests together."""

    id: Annotated[Text, Field(pattern=SESSION_ID, max_length=128)] | None = None
    """The ID of the session, which the client chooses. Alternative to the header `x-session-id`.
    Each API key has sessions of its own."""
    max_thinking_tokens: Count | None = None
    """The maximum number of thinking tokens of the session. Budgets are clamped to what is left,
    down to 0."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """The maximum number of tokens of the session's prompts and answers."""
    max_cost: Annotated[Float, Field(gt=0, lt=10**9)] | None = None
    """The maximum cost of the session, in the currency of the server's prices."""
    max_requests: Annotated[Int, Field(ge=1)] | None = None
    """The maximum number of requests in the session."""
    max_seconds: Annotated[Float, Field(gt=0, lt=10**9)] | None = None
    """The maximum time from the session's first request to the end of its last."""


def session_names(fields: Mapping[str, object]) -> Iterator[str]:
    """Yield what names a session in fields that other APIs have, the most specific first.

    Args:
        fields: the fields of a request, of which `metadata`, `conversation` and
            `prompt_cache_key` are read.
    """
    metadata = fields.get("metadata")
    if isinstance(metadata, Mapping):
        yield from _texts(metadata.get("session_id"))
        for user in _texts(metadata.get("user_id")):
            found = CLAUDE_CODE_USER.search(user)
            yield user if found is None else found["plain"] or found["json"]
    conversation = fields.get("conversation")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("id")
    yield from _texts(conversation)
    yield from _texts(fields.get("prompt_cache_key"))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
