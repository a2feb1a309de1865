"""The session of a launched agent: its ID, its limits, and what it has cost."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

ID_HEADER = "x-session-id"
THINKING_HEADER = "x-session-max-thinking-tokens"
COST_HEADER = "x-session-max-cost"


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
            THINKING_HEADER: self.max_thinking_tokens,
            COST_HEADER: self.max_cost,
        }
        return {name: f"{value}" for name, value in headers.items() if value is not None}


def new_session_id(agent: str) -> str:
    """Return an ID that no other session has."""
    return f"{agent}-{uuid.uuid4().hex[:12]}"
