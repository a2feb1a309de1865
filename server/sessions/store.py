"""The sessions in the ledger's database, which all gateways share."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select, true, union_all
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor.server.config.sessions import SessionLimits
from proctor.server.sessions.limits import (
    Session,
    SessionState,
    SessionUsage,
    TierUsage,
    allowance,
)
from proctor.server.storage.database import lock
from proctor.server.storage.tables import holds, session_usage, sessions


class AllowanceChanged(Exception):
    """Concurrent requests have reserved what a request was admitted with."""


class SessionStore:
    """The usage and the limits of sessions."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
        upsert = insert(sessions)
        self._upsert = upsert.on_conflict_do_update(
            index_elements=["key", "id"],
            set_={"requested": upsert.excluded.requested, "limits": upsert.excluded.limits},
        )

    async def state(self, key: str, session_id: str) -> SessionState:
        """Return the state of a session, which is empty before its first request.

        Args:
            key: the name of its key; empty without keys.
            session_id: its ID.
        """
        async with self._engine.connect() as connection:
            return await _state(connection, key, session_id)

    async def claim(
        self,
        connection: AsyncConnection,
        session: Session,
        tier: str,
        worst_case: SessionUsage,
        now: datetime,
    ) -> None:
        """Check in the caller's transaction that a session's limits cover a request.

        Until the transaction ends, other requests of the session wait. The caller adds the
        reservation to it.

        Args:
            connection: the transaction.
            session: the session and its limits.
            tier: the tier of the request.
            worst_case: the maximum that the request may use.
            now: when the request was received.

        Raises:
            AllowanceChanged: if they do not cover it.
        """
        if session.id is None:
            return
        await lock(connection, f"session {session.key} {session.id}")
        state = await _state(connection, session.key, session.id)
        if not allowance(session, state, now).covers(tier, worst_case):
            raise AllowanceChanged
        requested = state.requested.lowered_by(session.requested)
        limits = session.limits(state)
        if state.created is None or (requested, limits) != (state.requested, state.limits):
            row = {
                "key": session.key,
                "id": session.id,
                "created": state.created or now,
                "requested": requested.model_dump_json(exclude_none=True),
                "limits": limits.model_dump_json(exclude_none=True),
            }
            await connection.execute(self._upsert, row)


async def _state(connection: AsyncConnection, key: str, session_id: str) -> SessionState:
    is_session = (sessions.c.key == key) & (sessions.c.id == session_id)
    stored = (await connection.execute(select(sessions).where(is_session))).first()
    parts = (await connection.execute(_usage_query(key, session_id))).all()
    since = [part.since for part in parts] + ([] if stored is None else [stored.created])
    unlimited = SessionLimits()
    return SessionState(
        min(since, default=None),
        unlimited if stored is None else SessionLimits.model_validate_json(stored.requested),
        unlimited if stored is None else SessionLimits.model_validate_json(stored.limits),
        _by_tier(parts),
    )


def _usage_query(key: str, session_id: str) -> Select[Any]:
    """Return the query of what has been used and reserved in each tier.

    A single statement sees one snapshot of the database, in which a request that finishes
    meanwhile is either a reservation or counted.
    """
    usage = session_usage.c
    counted = select(
        true().label("settled"),
        usage.tier,
        usage.requests,
        usage.thinking_tokens.label("thinking"),
        (usage.prompt_tokens + usage.completion_tokens).label("tokens"),
        usage.nanos,
        usage.first.label("since"),
    ).where((usage.key == key) & (usage.session == session_id))
    reserved = (
        select(
            holds.c.settled,
            holds.c.tier,
            func.count().label("requests"),
            func.sum(holds.c.thinking).label("thinking"),
            func.sum(holds.c.tokens).label("tokens"),
            func.sum(holds.c.nanos).label("nanos"),
            func.min(holds.c.placed).label("since"),
        )
        .where((holds.c.key == key) & (holds.c.session == session_id))
        .group_by(holds.c.settled, holds.c.tier)
    )
    return select(union_all(counted, reserved).subquery())


def _by_tier(parts: Iterable[Row[Any]]) -> tuple[TierUsage, ...]:
    tiers: dict[str, TierUsage] = {}
    for part in parts:
        use = SessionUsage(*map(int, (part.requests, part.thinking, part.tokens, part.nanos)))
        _, used, reserved = tiers.get(part.tier, TierUsage("", SessionUsage(), SessionUsage()))
        if part.settled:
            tiers[part.tier] = TierUsage(part.tier, used + use, reserved)
        else:
            tiers[part.tier] = TierUsage(part.tier, used, reserved + use)
    return tuple(tiers.values())
