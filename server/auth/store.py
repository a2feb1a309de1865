"""The API keys in the ledger's database."""

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
    """A key with this name already exists."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key in the database.

    Attributes:
        key: the key.
        created: when the key was created.
        revoked: when the key was revoked, or None.
    """

    key: Key
    created: datetime
    revoked: datetime | None


class KeyStore:
    """The store of API keys, in a database whose tables exist."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, hashed: str) -> StoredKey | None:
        """Return the key whose token has this hash, even if it is revoked, or None."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(keys).where(keys.c.hash == hashed))).first()
        return None if row is None else _from_row(row)

    async def all(self) -> Sequence[StoredKey]:
        """Return all keys, oldest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(keys).order_by(keys.c.created))
            return [_from_row(row) for row in rows]

    async def add(self, key: Key) -> None:
        """Store a key.

        Raises:
            KeyExists: if a key with its name exists, even a revoked one: a name in the
                ledger must always mean the same key.
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
            raise KeyExists(f"A key named '{key.name}' already exists.") from None

    async def revoke(self, name: str) -> bool:
        """Revoke a key, and return whether there was an active key with this name."""
        active = (keys.c.name == name) & keys.c.revoked.is_(None)
        statement = update(keys).where(active).values(revoked=datetime.now(UTC))
        async with self._engine.begin() as connection:
            return (await connection.execute(statement)).rowcount > 0


async def has_keys(settings: LedgerSettings) -> bool:
    """Return whether the database has active keys; True if it cannot be read."""
    url = settings.url.get_secret_value()
    if not url:
        return False
    database = open_database(url)
    try:
        return any(stored.revoked is None for stored in await KeyStore(database).all())
    except Exception as error:  # each driver has exceptions of its own
        logger.warning("API keys cannot be read: %s", reason(error))
        return True
    finally:
        await database.dispose()


def _from_row(row: Row[Any]) -> StoredKey:
    limits = KeyLimits.model_validate_json(row.limits)
    key = Key(row.id, row.name, Scope(row.scope), row.hash, limits)
    return StoredKey(key, row.created, row.revoked)
