"""Answers that are kept for a while, for clients that ask for one again."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.storage.tables import replays


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that its client can name.

    Attributes:
        key: the name of the client's key, empty where no keys are asked for.
        name: what the client calls the request.
        digest: the SHA-256 of its body.
    """

    key: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """What is known of a request of that name.

    Attributes:
        digest: of its body.
        media_type: of its answer, or None while it runs.
        tier: of its budget.
        body: the answer.
    """

    digest: str
    media_type: str | None
    tier: str
    body: bytes


class IdempotencyStore:
    """Claims and answers in the ledger's database."""

    def __init__(self, engine: AsyncEngine, gateway: str) -> None:
        """Take names for a gateway; if it is lost, others let them be free.

        Args:
            engine: connects to the database.
            gateway: the one that runs the requests.
        """
        self._engine = engine
        self._gateway = gateway
        kind = engine.dialect.name
        insert = sqlite.insert if kind == "sqlite" else postgresql.insert
        self._insert = insert(replays).on_conflict_do_nothing().returning(replays.c.key)

    async def claim(self, claim: Claim, now: datetime) -> CachedResponse | None:
        """Take a name for a request that is to run, unless one has it.

        Args:
            claim: the request.
            now: the time.

        Returns:
            The one that has the name; None if the name was free, and is taken now.
        """
        row = {
            "key": claim.key,
            "name": claim.name,
            "digest": claim.digest,
            "tier": "",
            "body": b"",
            "gateway": self._gateway,
        }
        async with self._engine.begin() as connection:
            await connection.execute(delete(replays).where(replays.c.expires <= now))
            found = None
            while found is None:  # it may be given up between the two
                if (await connection.execute(self._insert.values(row))).first() is not None:
                    return None
                found = (await connection.execute(select(replays).where(_is(claim)))).first()
        return CachedResponse(found.digest, found.media_type, found.tier, found.body)

    async def keep(self, claim: Claim, kept: CachedResponse, expires: datetime) -> None:
        """Keep the answer until then, if its name was not taken by another meanwhile."""
        done = {
            "media_type": kept.media_type,
            "tier": kept.tier,
            "body": kept.body,
            "gateway": None,
            "expires": expires,
        }
        async with self._engine.begin() as connection:
            await connection.execute(update(replays).where(self._has(claim)).values(done))

    async def give_up(self, claim: Claim) -> None:
        """Let the name be free again: the request was not answered."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(replays).where(self._has(claim)))

    def _has(self, claim: Claim) -> ColumnElement[bool]:
        """Whether it is still this gateway's, which may have been thought lost."""
        return _is(claim) & (replays.c.gateway == self._gateway)


def _is(claim: Claim) -> ColumnElement[bool]:
    return (replays.c.key == claim.key) & (replays.c.name == claim.name)
