"""The secrets of records in the ledger's database."""

import secrets
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor.server.storage.tables import record_secrets
from proctor.server.turns.keyring import KEY_BYTES, Secret

LOCK = 0x7265636F726473
"""The key of PostgreSQL's advisory lock, so that one process makes a secret at a time."""


class SecretStore:
    """The store of secrets, in a database whose tables exist.

    Gateways share the secrets. The ids are public; everyone who can read the table can forge
    records, as everyone who can write to the database can change what keys have spent.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get_or_create(self, now: datetime) -> list[Secret]:
        """Return the secrets that have not expired; make the first one if there is none."""
        async with self._engine.connect() as connection:
            found = await _unexpired(connection, now)
        if found:
            return found
        async with self._engine.begin() as connection:
            await _lock(connection)
            found = await _unexpired(connection, now)
            return found or [await _add(connection, now)]

    async def rotate(self, now: datetime, keep: timedelta) -> Secret:
        """Make a new secret, and return it.

        Args:
            now: the time.
            keep: how long the records of the other secrets stay valid.
        """
        expires = now + keep
        longer = record_secrets.c.expires.is_(None) | (record_secrets.c.expires > expires)
        async with self._engine.begin() as connection:
            await _lock(connection)
            await connection.execute(delete(record_secrets).where(~_is_unexpired(now)))
            await connection.execute(update(record_secrets).where(longer).values(expires=expires))
            return await _add(connection, now)


async def _lock(connection: AsyncConnection) -> None:
    """Wait for other processes that make a secret; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))


async def _unexpired(connection: AsyncConnection, now: datetime) -> list[Secret]:
    newest_first = record_secrets.c.created.desc()
    rows = await connection.execute(
        select(record_secrets).where(_is_unexpired(now)).order_by(newest_first)
    )
    return [Secret(row.secret, row.created, row.expires) for row in rows]


async def _add(connection: AsyncConnection, now: datetime) -> Secret:
    secret = Secret(secrets.token_bytes(KEY_BYTES), now)
    row = {"id": secret.id.hex(), "secret": secret.value, "created": now}
    await connection.execute(insert(record_secrets).values(row))
    return secret


def _is_unexpired(now: datetime) -> ColumnElement[bool]:
    return record_secrets.c.expires.is_(None) | (record_secrets.c.expires > now)
