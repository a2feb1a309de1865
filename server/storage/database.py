"""From a ledger's URL to an engine of SQLAlchemy's."""

import asyncio
import logging
import os
from errno import ENOENT
from importlib.util import find_spec
from pathlib import Path
from sqlite3 import OperationalError
from typing import Any

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from proctor.server.config.paths import state_folder
from proctor.server.config.settings import ConfigError

logger = logging.getLogger(__name__)

DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}
"""The driver of each database that a ledger can be in."""

PAUSE_SECONDS = 0.02
"""Between two tries to switch a file to the write-ahead log."""

SECONDS = 5.0
"""For a connection to be made, or for SQLite's lock; what takes longer is tried again."""


def read_url(text: str) -> URL:
    """The URL with its driver.

    Raises:
        ValueError: if it is none, or of a database that a ledger cannot be in.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ValueError("it should be like sqlite:///ledger.db or postgresql://…") from error
    kind, _, driver = url.drivername.partition("+")
    kind = "postgresql" if kind == "postgres" else kind
    wanted = DRIVERS.get(kind)
    if wanted is None or driver not in ("", wanted):
        raise ValueError(f"a ledger can be in sqlite or postgresql, and not in '{url.drivername}'")
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("a ledger in SQLite needs a file: sqlite:///ledger.db")
    if find_spec(wanted) is None:
        raise ValueError(f"{kind} needs {wanted}: pip install 'proctor[postgres]'")
    return url.set(drivername=f"{kind}+{wanted}")


def sqlite_file(text: str) -> Path | None:
    """The file of a ledger in SQLite, None of one elsewhere; the URL may be none at all."""
    try:
        url = read_url(text)
    except ValueError:
        return None
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def connect(text: str, *, reads_only: bool = False) -> AsyncEngine:
    """An engine; it connects when it is first used.

    Args:
        text: the ledger's URL.
        reads_only: whether nothing is written, so that no lock is taken.

    Raises:
        ValueError: if the URL is none.
        OSError: if the folder of a file is not there, or cannot be made.
    """
    url = read_url(text)
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        if (folder := file.parent) == state_folder():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        if not folder.is_dir():
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(folder))
        # SQLite takes one writer at a time. Those who wait for one connection take turns as they
        # came; connections would each try for the lock now and then, and some never get it.
        engine = create_async_engine(
            url, connect_args={"timeout": SECONDS}, pool_size=1, max_overflow=0
        )
        _prepare_sqlite(engine, reads_only=reads_only)
        _watch_file(engine, file, reads_only=reads_only)
        return engine
    limits = {"timeout": SECONDS, "command_timeout": 60.0}
    return create_async_engine(url, connect_args=limits, pool_pre_ping=True)


def _log_ahead(cursor: Any) -> None:
    """Switch to the write-ahead log.

    SQLite would wait for a writer with a lock in its hand that the writer waits
    for, until one of them gives up; so it is told not to wait, and asked again.
    """
    tries = int(SECONDS / PAUSE_SECONDS)
    cursor.execute("PRAGMA busy_timeout=0")
    for left in reversed(range(tries)):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except OperationalError:
            if not left:
                raise
            await_only(asyncio.sleep(PAUSE_SECONDS))
    cursor.execute(f"PRAGMA busy_timeout={int(1000 * SECONDS)}")


def _prepare_sqlite(engine: AsyncEngine, *, reads_only: bool) -> None:
    """Write-ahead log, and transactions that are what they seem.

    A commit waits for the operating system to take it, and not for the disk: it
    survives this process, and no slow disk holds rows up.
    """

    def on_connect(connection: Any, _: Any) -> None:
        # The driver would begin transactions when it likes, and not at all before DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA foreign_keys=ON")
            if not reads_only:
                _log_ahead(cursor)
                cursor.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            connection.close()  # the pool does not know it yet
            raise
        cursor.close()

    def on_begin(connection: Connection) -> None:
        # The lock is waited for here: a transaction that reads first could not wait later.
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)


def _watch_file(engine: AsyncEngine, file: Path, *, reads_only: bool) -> None:
    """Make the file this user's alone, and notice when it is no longer there.

    SQLite goes on writing to a file that was deleted, and nobody would ever read it.
    """

    def on_do_connect(*_: Any) -> None:
        if not reads_only:
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))

    def on_connect(_: Any, record: ConnectionPoolEntry) -> None:
        record.info["file"] = _identity(file)

    def on_checkout(_: Any, record: ConnectionPoolEntry, __: Any) -> None:
        if _identity(file) != record.info["file"]:
            logger.error("the ledger's file %s was deleted or replaced: it is opened anew", file)
            raise DisconnectionError("the file is gone")

    event.listen(engine.sync_engine, "do_connect", on_do_connect)
    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "checkout", on_checkout)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_database(url: str, *, reads_only: bool = False) -> AsyncEngine:
    """The database, not connected to yet.

    Raises:
        BadSettings: if there can be none.
    """
    try:
        return connect(url, reads_only=reads_only)
    except ValueError as error:
        raise ConfigError(f"ledger.url: {error}") from error
    except OSError as error:
        raise ConfigError(f"ledger.url: {error.filename}: {error.strerror}") from error
