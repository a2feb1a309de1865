"""Classification of database errors into permanent and temporary ones."""

from sqlalchemy.exc import DataError, IntegrityError

TEMPORARY_STATES = frozenset({"53300", "57P03"})
"""PostgreSQL's error codes for too many connections, and for a server that is starting."""


DATA_EXCEPTION = "22"
"""PostgreSQL's class of error codes for values that a column cannot hold."""


class LedgerError(RuntimeError):
    """The ledger cannot be used; the message says why."""


class RowsRefused(ValueError):
    """The database can never store these rows."""


def is_refusal(error: Exception) -> bool:
    """Return whether a driver's error means that the database can never store the values."""
    if isinstance(error, DataError | IntegrityError | UnicodeError | OverflowError):
        return True
    # SQLAlchemy has no exception class for values that asyncpg cannot encode.
    state = getattr(getattr(error, "driver_exception", None), "sqlstate", None)
    return str(state).startswith(DATA_EXCEPTION)


def is_unavailable(error: BaseException) -> bool:
    """Return whether a database could not be reached, and may be available later."""
    unreachable = isinstance(error, OSError | TimeoutError)
    return unreachable or getattr(error, "sqlstate", None) in TEMPORARY_STATES


def reason(error: BaseException) -> str:
    """Return the message of an error in one line, without the SQL statement."""
    cause = getattr(error, "orig", None) or error
    return (str(cause) or type(cause).__name__).split("\n", 1)[0]
