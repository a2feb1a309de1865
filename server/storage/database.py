"""SQLAlchemy engines for the ledger's database."""

import asyncio
import logging
import os
from errno import ENOENT
from importlib.util import find_spec
from pathlib import Path
from sqlite3 import OperationalError
from typing import Any

from sqlalchemy import URL, Connection, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from proctor.server.config.paths import state_folder
from proctor.server.config.section import ConfigError

logger = logging.getLogger(__name__)

DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}
"""The driver of each supported database."""

WAL_RETRY_SECONDS = 0.02
"""The delay between two attempts to switch a file to the write-ahead log."""

CONNECT_SECONDS = 5.0
"""The timeout for a connection, and for SQLite's lock; callers retry what takes longer."""


def read_url(text: str) -> URL:
    """Parse a database URL, and add the driver to it.

    Raises:
        ValueError: if the URL is invalid, or of a database that is not supported.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        message = "Expected a URL like sqlite:///ledger.db or postgresql://…"
        raise ValueError(message) from error
    kind, _, name = url.drivername.partition("+")
    kind = "postgresql" if kind == "postgres" else kind
    driver = DRIVERS.get(kind)
    if driver is None or name not in ("", driver):
        message = f"Unsupported database '{url.drivername}': use sqlite or postgresql"
        raise ValueError(message)
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("SQLite requires a file, like sqlite:///ledger.db")
    if find_spec(driver) is None:
        raise ValueError(f"{kind} requires {driver}: pip install 'proctor[postgres]'")
    return url.set(drivername=f"{kind}+{driver}")


def sqlite_file(text: str) -> Path | None:
    """Return the file of a SQLite URL, or None for other and invalid URLs."""
    try:
        url = read_url(text)
    except ValueError:
        return None
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def connect(text: str, *, reads_only: bool = False) -> AsyncEngine:
    """Return an engine, which connects when it is first used.

    Args:
        text: the URL of the ledger.
        reads_only: whether nothing is written, so that SQLite's write lock is not taken.

    Raises:
        ValueError: if the URL is invalid.
        OSError: if the folder of the file does not exist, or cannot be created.
    """
    url = read_url(text)
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        if (folder := file.parent) == state_folder():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        if not folder.is_dir():
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(folder))
        # SQLite allows one writer at a time. Waiting for a single connection is FIFO, while several
        # connections would poll for the lock, and some could starve.
        engine = create_async_engine(
            url, connect_args={"timeout": CONNECT_SECONDS}, pool_size=1, max_overflow=0
        )
        _prepare_sqlite(engine, reads_only=reads_only)
        _watch_file(engine, file, reads_only=reads_only)
        return engine
    timeouts = {"timeout": CONNECT_SECONDS, "command_timeout": 60.0}
    return create_async_engine(url, connect_args=timeouts, pool_pre_ping=True)


async def lock(connection: AsyncConnection, name: str) -> None:
    """Serialize a transaction with all others that lock the same name, until it ends."""
    if connection.dialect.name == "postgresql":  # SQLite allows one writer at a time anyway
        number = func.hashtextextended(name, 0)
        await connection.execute(select(func.pg_advisory_xact_lock(number)))


def _enable_wal(cursor: Any) -> None:
    """Switch to the write-ahead log.

    While SQLite waits for a writer, it holds a lock that the writer waits for, until one
    of them times out. So the busy timeout is turned off, and the statement retried.
    """
    attempts = int(CONNECT_SECONDS / WAL_RETRY_SECONDS)
    cursor.execute("PRAGMA busy_timeout=0")
    for left in reversed(range(attempts)):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except OperationalError:
            if not left:
                raise
            await_only(asyncio.sleep(WAL_RETRY_SECONDS))
    cursor.execute(f"PRAGMA busy_timeout={int(1000 * CONNECT_SECONDS)}")


def _prepare_sqlite(engine: AsyncEngine, *, reads_only: bool) -> None:
    """Enable the write-ahead log, and transactions that begin explicitly.

    A commit waits for the operating system's cache and not for the disk: it survives a
    crash of this process, and a slow disk does not delay rows.
    """

    def on_connect(connection: Any, _: Any) -> None:
        # By default, the driver begins transactions implicitly, and not at all before DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA foreign_keys=ON")
            if not reads_only:
                _enable_wal(cursor)
                cursor.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            connection.close()  # it is not in the pool yet
            raise
        cursor.close()

    def on_begin(connection: Connection) -> None:
        # Wait for the write lock here: a transaction that has read cannot wait for it later.
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)


def _watch_file(engine: AsyncEngine, file: Path, *, reads_only: bool) -> None:
    """Create the file with owner-only permissions, and reconnect when it is deleted or replaced.

    SQLite goes on writing to a deleted file, whose rows would be lost.
    """

    def on_do_connect(*_: Any) -> None:
        if not reads_only:
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))

    def on_connect(_: Any, record: ConnectionPoolEntry) -> None:
        record.info["file"] = _identity(file)

    def on_checkout(_: Any, record: ConnectionPoolEntry, __: Any) -> None:
        if _identity(file) != record.info["file"]:
            logger.error("The ledger's file %s was deleted or replaced; reconnecting", file)
            raise DisconnectionError("the file was deleted or replaced")

    event.listen(engine.sync_engine, "do_connect", on_do_connect)
    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "checkout", on_checkout)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_database(url: str, *, reads_only: bool = False) -> AsyncEngine:
    """Return an engine for the setting `ledger.url`, which connects when it is first used.

    Raises:
        ConfigError: if the URL is invalid, or the folder of its file cannot be used.
    """
    try:
        return connect(url, reads_only=reads_only)
    except ValueError as error:
        raise ConfigError(f"ledger.url: {error}") from error
    except OSError as error:
        raise ConfigError(f"ledger.url: {error.filename}: {error.strerror}") from error
