"""Migration of the database's tables to the version that this server requires."""

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
"""The key of PostgreSQL's advisory lock, so that one process migrates at a time."""


async def migrate(engine: AsyncEngine) -> None:
    """Migrate the tables to the newest version, if they do not have it.

    Raises:
        LedgerError: if the tables have a version unknown to this server.
        Exception: any error of the database.
    """
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        await connection.run_sync(_upgrade)


async def check_version(engine: AsyncEngine) -> None:
    """Check that the tables have the newest version.

    Raises:
        LedgerError: if they do not, or the database cannot be read.
    """
    try:
        async with engine.connect() as connection:
            version = await connection.run_sync(_revision)
    except Exception as error:  # each driver has exceptions of its own
        raise LedgerError(f"The ledger cannot be read: {reason(error)}") from error
    if version != (newest := ScriptDirectory.from_config(_config()).get_current_head()):
        raise LedgerError(
            f"The ledger's tables have version {version or 'none'}, but version {newest} is "
            "required. Run 'proctor ledger migrate'."
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
            f"The ledger's tables have an unknown version, of a newer server: {error}"
        ) from error
