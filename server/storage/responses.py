"""Responses of the Responses API, stored for clients that continue, poll or resume them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor.server.storage.tables import response_events, responses

QUEUED, IN_PROGRESS, CANCELLED, FAILED = "queued", "in_progress", "cancelled", "failed"
RUNNING = (QUEUED, IN_PROGRESS)
"""The statuses of responses that are generated in the background."""

MAX_EVENTS = 500
"""The maximum number of events that are read at once."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A stored response.

    Attributes:
        id: the id of the response.
        key: the name of the API key, empty if keys are not required.
        status: its status, which is newer than that in the body.
        input: the items of the conversation before the response, as JSON.
        body: the response, as JSON.
    """

    id: str
    key: str
    status: str
    input: bytes
    body: bytes

    @property
    def is_running(self) -> bool:
        """Whether the response is being generated."""
        return self.status in RUNNING


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of the stream of a response.

    Attributes:
        number: its sequence number.
        data: the encoded event.
    """

    number: int
    data: bytes


MAX_STORED_BYTES = 2**22
"""The maximum size of a response that is stored, with the conversation before it."""


class ResponseStore:
    """The store of responses, in the ledger's database."""

    def __init__(self, engine: AsyncEngine, gateway: str) -> None:
        """Initialize the store of a gateway.

        Args:
            engine: connects to the database.
            gateway: the gateway that generates responses in the background. If it is lost, other
                gateways end them.
        """
        self._engine = engine
        self._gateway = gateway
        dialect_insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
        # Events that are there already are from a commit whose confirmation was lost.
        self._insert_events = dialect_insert(response_events).on_conflict_do_nothing()

    async def add(self, response: StoredResponse, now: datetime, expires: datetime | None) -> None:
        """Store a response, and delete those that have expired.

        Args:
            response: the response.
            now: the time.
            expires: when it expires; None if this gateway is going to generate it.
        """
        row = {
            "id": response.id,
            "key": response.key,
            "status": response.status,
            "input": response.input,
            "body": response.body,
            "gateway": self._gateway if expires is None else None,
            "expires": expires,
        }
        async with self._engine.begin() as connection:
            await connection.execute(delete(responses).where(responses.c.expires <= now))
            await connection.execute(insert(responses).values(row))

    async def get(self, key: str, response_id: str, now: datetime) -> StoredResponse | None:
        """Return a response of an API key, or None if it has none with this id."""
        unexpired = responses.c.expires.is_(None) | (responses.c.expires > now)
        query = select(responses).where(_is(key, response_id) & unexpired)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else StoredResponse(*row[:5])

    async def delete(self, key: str, response_id: str) -> bool:
        """Delete a response, and return whether there was one."""
        async with self._engine.begin() as connection:
            statement = delete(responses).where(_is(key, response_id))
            return bool((await connection.execute(statement)).rowcount)

    async def cancel(self, key: str, response_id: str) -> None:
        """Mark a response as cancelled if it is running. Its gateway then ends it."""
        is_running = _is(key, response_id) & responses.c.status.in_(RUNNING)
        async with self._engine.begin() as connection:
            statement = update(responses).where(is_running).values(status=CANCELLED)
            await connection.execute(statement)

    async def append(self, response_id: str, events: Sequence[StoredEvent]) -> bool:
        """Add events to a response that this gateway generates.

        Returns:
            Whether to continue: false if the response has been cancelled, deleted, or taken over
            by another gateway.
        """
        statement = update(responses).where(self._is_own(response_id)).values(status=IN_PROGRESS)
        async with self._engine.begin() as connection:
            if not (await connection.execute(statement)).rowcount:
                return False
            await self._insert(connection, response_id, events)
        return True

    async def end(
        self,
        response_id: str,
        status: str,
        body: bytes,
        events: Sequence[StoredEvent],
        expires: datetime,
    ) -> None:
        """Store the end of a response that this gateway has generated.

        A response that was cancelled stays so, with the body and without the events.
        """
        values = {"body": body, "gateway": None, "expires": expires}
        own = self._is_own(response_id)
        cancelled = (responses.c.id == response_id) & (responses.c.gateway == self._gateway)
        async with self._engine.begin() as connection:
            ending = update(responses).where(own).values(status=status, **values)
            if (await connection.execute(ending)).rowcount:
                await self._insert(connection, response_id, events)
            else:
                await connection.execute(update(responses).where(cancelled).values(values))

    async def events(self, response_id: str, after: int) -> list[StoredEvent]:
        """Return the next events of a response, at most `MAX_EVENTS`, after the one numbered so."""
        is_next = (response_events.c.id == response_id) & (response_events.c.number > after)
        query = (
            select(response_events.c.number, response_events.c.data)
            .where(is_next)
            .order_by(response_events.c.number)
            .limit(MAX_EVENTS)
        )
        async with self._engine.connect() as connection:
            return [StoredEvent(*row) for row in await connection.execute(query)]

    async def _insert(
        self, connection: AsyncConnection, response_id: str, events: Sequence[StoredEvent]
    ) -> None:
        rows = [{"id": response_id, "number": each.number, "data": each.data} for each in events]
        if rows:
            await connection.execute(self._insert_events, rows)

    def _is_own(self, response_id: str) -> ColumnElement[bool]:
        """Match the response if it is running, and this gateway was not mistaken for lost."""
        is_running = responses.c.status.in_(RUNNING) & (responses.c.gateway == self._gateway)
        return (responses.c.id == response_id) & is_running


def _is(key: str, response_id: str) -> ColumnElement[bool]:
    return (responses.c.key == key) & (responses.c.id == response_id)
