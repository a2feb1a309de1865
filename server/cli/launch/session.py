"""The session of a launched agent: its ID and its limits."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from proctor.server.sessions.names import ID_HEADER, LIMIT_HEADERS


@dataclass(frozen=True, slots=True)
class LaunchedSession:
    """The session of a launched agent.

    Attributes:
        id: its ID.
        max_thinking_tokens: the maximum number of thinking tokens, or None.
        max_cost: the maximum cost, in the currency of the server's prices, or None.
    """

    id: str
    max_thinking_tokens: int | None = None
    max_cost: Decimal | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that name the session and set its limits."""
        headers = {
            ID_HEADER: self.id,
            LIMIT_HEADERS["max_thinking_tokens"]: self.max_thinking_tokens,
            LIMIT_HEADERS["max_cost"]: self.max_cost,
        }
        return {name: f"{value}" for name, value in headers.items() if value is not None}


def new_session_id(agent: str) -> str:
    """Return an ID that no other session has."""
    return f"{agent}-{uuid.uuid4().hex[:12]}"
