"""Responses stored by idempotency key, for clients that repeat a request."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.storage.tables import replays


@dataclass(frozen=True, slots=True)
class Claim:
    """A request with an idempotency key.

    Attributes:
        key: the name of the API key, empty if keys are not required.
        name: the idempotency key.
        digest: the SHA-256 of the request body.
    """

    key: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """The response to a request with an idempotency key.

    Attributes:
        digest: the SHA-256 of the request body.
        media_type: the media type of the response, or None while the request is running.
        tier: the tier of the budget.
        body: the body of the response.
    """

    digest: str
    media_type: str | None
    tier: str
    body: bytes


class IdempotencyStore:
    """The store of idempotency keys and responses, in the ledger's database."""

    def __init__(self, engine: AsyncEngine, gateway: str) -> None:
        """Initialize the store of a gateway.

        Args:
            engine: connects to the database.
            gateway: the gateway that runs the requests. If it is lost, other gateways
                release its claims.
        """
        self._engine = engine
        self._gateway = gateway
        kind = engine.dialect.name
        insert = sqlite.insert if kind == "sqlite" else postgresql.insert
        self._insert = insert(replays).on_conflict_do_nothing().returning(replays.c.key)

    async def claim(self, claim: Claim, now: datetime) -> CachedResponse | None:
        """Claim an idempotency key for a request that is about to run.

        Args:
            claim: the request.
            now: the time.

        Returns:
            The response of the request that has the key; None if the key was free, and
            is claimed now.
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
            existing = None
            while existing is None:  # another gateway may release the key between the two
                if (await connection.execute(self._insert.values(row))).first() is not None:
                    return None
                existing = (await connection.execute(select(replays).where(_is(claim)))).first()
        return CachedResponse(existing.digest, existing.media_type, existing.tier, existing.body)

    async def keep(self, claim: Claim, response: CachedResponse, expires: datetime) -> None:
        """Store a response until it expires, unless another gateway has taken the claim over."""
        values = {
            "media_type": response.media_type,
            "tier": response.tier,
            "body": response.body,
            "gateway": None,
            "expires": expires,
        }
        async with self._engine.begin() as connection:
            await connection.execute(update(replays).where(self._is_own(claim)).values(values))

    async def give_up(self, claim: Claim) -> None:
        """Release the key of a request that got no response."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(replays).where(self._is_own(claim)))

    def _is_own(self, claim: Claim) -> ColumnElement[bool]:
        """Match the claim if this gateway still has it, and was not mistaken for lost."""
        return _is(claim) & (replays.c.gateway == self._gateway)


def _is(claim: Claim) -> ColumnElement[bool]:
    return (replays.c.key == claim.key) & (replays.c.name == claim.name)
