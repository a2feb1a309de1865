"""What databases refuse, told apart from what they cannot do now."""

from sqlalchemy.exc import DataError, IntegrityError

NOT_NOW = frozenset({"53300", "57P03"})
"""PostgreSQL's codes for too many connections, and for a server that is just starting."""


DATA_EXCEPTION = "22"
"""The class of PostgreSQL's codes for values that a column cannot hold."""


class LedgerError(RuntimeError):
    """The ledger cannot be used as it is; the message says why."""


class RowsRefused(ValueError):
    """The database will never take these rows."""


def is_refusal(error: Exception) -> bool:
    """Whether a database will never take what it was given, by what its driver raises."""
    if isinstance(error, DataError | IntegrityError | UnicodeError | OverflowError):
        return True
    # What asyncpg cannot even send has no class of its own in SQLAlchemy.
    state = getattr(getattr(error, "driver_exception", None), "sqlstate", None)
    return str(state).startswith(DATA_EXCEPTION)


def is_away(error: BaseException) -> bool:
    """Whether a database could not be reached, and may be there later."""
    away = isinstance(error, OSError | TimeoutError)
    return away or getattr(error, "sqlstate", None) in NOT_NOW


def reason(error: BaseException) -> str:
    """What went wrong, in one line, without the statement that was tried."""
    said = getattr(error, "orig", None) or error
    return (str(said) or type(said).__name__).split("\n", 1)[0]
