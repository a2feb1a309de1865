"""API keys in the ledger's database."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Row,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.auth.api_key import Key
from proctor.server.config.access import KeyLimits, Scope
from proctor.server.config.ledger import LedgerSettings
from proctor.server.storage.database import open_database
from proctor.server.storage.errors import reason
from proctor.server.storage.tables import keys

logger = logging.getLogger(__name__)


class KeyExists(ValueError):
    """There is a key of that name already."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key in the database.

    Attributes:
        key: itself.
        created: when it was made.
        revoked: since when it opens nothing, or None.
    """

    key: Key
    created: datetime
    revoked: datetime | None


class KeyStore:
    """API keys in a database whose tables are there."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, hashed: str) -> StoredKey | None:
        """The key whose token has this hash, a revoked one too."""
        async with self._engine.connect() as connection:
            found = (await connection.execute(select(keys).where(keys.c.hash == hashed))).first()
        return None if found is None else _kept(found)

    async def all(self) -> Sequence[StoredKey]:
        """Every key, the oldest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(keys).order_by(keys.c.created))
            return [_kept(row) for row in rows]

    async def add(self, key: Key) -> None:
        """Keep a key.

        Raises:
            KeyExists: if one has its name, a revoked one too: what the ledger says
                of a name is to be of one key.
        """
        row = {
            "id": key.id,
            "name": key.name,
            "scope": key.scope.value,
            "hash": key.hash,
            "limits": key.limits.model_dump_json(),
            "created": datetime.now(UTC),
        }
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(keys).values(row))
        except IntegrityError:
            raise KeyExists(f"there is a key '{key.name}' already") from None

    async def revoke(self, name: str) -> bool:
        """Let a key open nothing any more; whether there is one that did."""
        open_one = (keys.c.name == name) & keys.c.revoked.is_(None)
        closing = update(keys).where(open_one).values(revoked=datetime.now(UTC))
        async with self._engine.begin() as connection:
            return (await connection.execute(closing)).rowcount > 0


async def has_keys(settings: LedgerSettings) -> bool:
    """Whether the database has keys that open anything; if it is away, it may have."""
    url = settings.url.get_secret_value()
    if not url:
        return False
    database = open_database(url)
    try:
        return any(kept.revoked is None for kept in await KeyStore(database).all())
    except Exception as error:  # drivers have their own
        logger.warning("keys cannot be read now: %s", reason(error))
        return True
    finally:
        await database.dispose()


def _kept(row: Row[Any]) -> StoredKey:
    limits = KeyLimits.model_validate_json(row.limits)
    key = Key(row.id, row.name, Scope(row.scope), row.hash, limits)
    return StoredKey(key, row.created, row.revoked)
