"""Brings the tables of a database to the version that this server needs."""

from alembic.command import upgrade
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.storage.errors import LedgerError, reason

MIGRATIONS = "proctor.server.storage:migrations"
LOCK = 0x70726F63746F72
"""PostgreSQL's advisory lock: one process migrates at a time."""


async def migrate(engine: AsyncEngine) -> None:
    """Bring the tables to the newest version; do nothing where they are.

    Raises:
        LedgerError: if they are of a version that this one does not know.
        Exception: whatever keeps the database from doing so.
    """
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        await connection.run_sync(_upgrade)


async def check_version(engine: AsyncEngine) -> None:
    """Return if the tables are of the newest version.

    Raises:
        LedgerError: if they are not, or the database cannot be read.
    """
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(_revision)
    except Exception as error:  # drivers have their own
        raise LedgerError(f"the ledger cannot be read: {reason(error)}") from error
    if found != (newest := ScriptDirectory.from_config(_config()).get_current_head()):
        raise LedgerError(
            f"the ledger's tables are of version {found or 'none'}, and {newest} is needed: "
            "run 'proctor ledger migrate'"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = _config()
    if _revision(connection) == ScriptDirectory.from_config(config).get_current_head():
        return
    config.attributes["connection"] = connection
    try:
        upgrade(config, "head")
    except CommandError as error:
        raise LedgerError(
            f"the ledger's tables are of a version that this one does not know: {error}"
        ) from error
