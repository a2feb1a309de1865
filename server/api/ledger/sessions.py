"""`GET /v1/sessions/{id}`: what a session has used, and what is left of its limits."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query, Request, Response

from proctor.server.accounting.ledger.service import Ledger
from proctor.server.auth.api_key import Key
from proctor.server.config.access import Scope
from proctor.server.config.sessions import Limit
from proctor.server.errors import SOON, Forbidden, NotFound, Unavailable
from proctor.server.nanos import NANO
from proctor.server.schemas.responses import (
    SessionCard,
    SessionTierReport,
    SessionUsageReport,
    as_json,
)
from proctor.server.sessions.limits import SessionUsage
from proctor.server.sessions.report import SessionReader, SessionReport, TierTotals
from proctor.server.storage.errors import reason

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""The maximum time that a request waits for queued rows and the database."""


class SessionsEndpoint:
    """The endpoint of `/v1/sessions`."""

    def __init__(self, reader: SessionReader | None, ledger: Ledger | None, currency: str) -> None:
        self._reader = reader
        self._ledger = ledger
        self._currency = currency

    async def get_session(
        self,
        request: Request,
        session: Annotated[str, Path(description="The ID of the session.")],
        key: Annotated[
            str | None,
            Query(description="The name of its API key, if that is not the request's own."),
        ] = None,
    ) -> Response:
        """Return a session of the request's key, or of any key to an admin.

        Raises:
            Forbidden: if it is the session of another key.
            NotFound: if there is no such session.
            Unavailable: if the ledger cannot be read now.
        """
        owner = _owner(request.state.key, key)
        report = None if self._reader is None else await self._read(self._reader, owner, session)
        if report is None:
            raise NotFound("The ledger has no session with this ID.", param="session")
        return as_json(to_card(report, self._currency, datetime.now(UTC)))

    async def _read(self, reader: SessionReader, key: str, session_id: str) -> SessionReport | None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._ledger is not None:
                    await self._ledger.flush()
                return await reader.report(key, session_id)
        except Exception as error:  # each driver has exceptions of its own
            logger.warning("sessions cannot be read: %s", reason(error))
            raise Unavailable(
                "The ledger cannot be read now. Try again later.", headers=SOON
            ) from error


def to_card(report: SessionReport, currency: str, now: datetime) -> SessionCard:
    """Return a report as JSON.

    Args:
        report: the report.
        currency: the currency of the server's prices.
        now: the time, for what is left of it.
    """
    state, amounts = report.state, report.amounts
    left = {limit: amounts[limit].left if limit in amounts else None for limit in Limit}
    cost = left[Limit.COST]
    limits = state.limits
    return {
        "id": report.id,
        "object": "session",
        "key": report.key or None,
        "created": 0 if state.created is None else int(state.created.timestamp()),
        "last": None if report.last is None else int(report.last.timestamp()),
        "used": _to_usage(report.used),
        "reserved": _to_usage(report.reserved),
        "limits": {
            "max_thinking_tokens": limits.max_thinking_tokens,
            "max_tokens": limits.max_tokens,
            "max_cost": None if limits.max_cost is None else float(limits.max_cost),
            "max_requests": limits.max_requests,
            "max_seconds": limits.max_seconds,
        },
        "remaining": {
            "thinking_tokens": left[Limit.THINKING],
            "tokens": left[Limit.TOKENS],
            "cost": None if cost is None else _to_money(cost),
            "requests": left[Limit.REQUESTS],
            "seconds": report.seconds_left(now),
        },
        "currency": currency,
        "tiers": [_to_tier(totals, currency) for totals in report.tiers],
    }


def _owner(own: Key | None, name: str | None) -> str:
    """Return the name of the key whose session a request may see.

    Raises:
        Forbidden: if it is another key's.
    """
    if own is None:
        return name or ""
    if name is not None and name != own.name and own.scope is not Scope.ADMIN:
        raise Forbidden(
            "Sessions of another API key require a key with the scope 'admin'.", param="key"
        )
    return own.name if name is None else name


def _to_usage(usage: SessionUsage) -> SessionUsageReport:
    return {
        "requests": usage.requests,
        "thinking_tokens": usage.thinking_tokens,
        "tokens": usage.tokens,
        "cost": _to_money(usage.nanos),
    }


def _to_tier(totals: TierTotals, currency: str) -> SessionTierReport:
    prompt = totals.nanos - totals.thinking_nanos - totals.answer_nanos
    return {
        "tier": totals.tier,
        "requests": totals.requests,
        "prompt_tokens": totals.prompt_tokens,
        "thinking_tokens": totals.thinking_tokens,
        "answer_tokens": totals.answer_tokens,
        "cost": {
            "currency": currency,
            "prompt": _to_money(prompt),
            "thinking": _to_money(totals.thinking_nanos),
            "answer": _to_money(totals.answer_nanos),
            "total": _to_money(totals.nanos),
        },
    }


def _to_money(nanos: int) -> float:
    return float(nanos * NANO)
