"""Admits requests within the limits of their sessions."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple
from weakref import WeakValueDictionary

from proctor.server.accounting.reservations import Reservation, Reservations
from proctor.server.auth.api_key import Key
from proctor.server.config.sessions import SessionLimits
from proctor.server.config.settings import Settings
from proctor.server.errors import (
    SOON,
    BadRequest,
    RateLimited,
    SessionLimitExceeded,
    Unavailable,
)
from proctor.server.generation.base import Admission
from proctor.server.sessions.limits import (
    UNLIMITED,
    Allowance,
    Session,
    SessionState,
    allowance,
    remaining_headers,
)
from proctor.server.sessions.names import ID_HEADER, RequestedSession
from proctor.server.sessions.store import AllowanceChanged, SessionStore
from proctor.server.storage.errors import reason

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""The maximum time that a request waits for the database, and for its turn in its session."""

MAX_TRIES = 16
"""The number of times that a request is admitted, if each time a request in another gateway
reserves first what is left."""

Admit = Callable[[Allowance], Awaitable[Admission]]
Reserve = Callable[[Admission, Session | None], Awaitable[Reservation]]


class SessionAdmission(NamedTuple):
    """A request that was admitted within the limits of its session.

    Attributes:
        admission: the admission.
        reservation: what is reserved for it.
        headers: the headers of the response about the session.
    """

    admission: Admission
    reservation: Reservation
    headers: dict[str, str]


class Sessions:
    """The sessions of a gateway's requests."""

    def __init__(
        self, settings: Settings, store: SessionStore | None, reservations: Reservations
    ) -> None:
        """Initialize the sessions.

        Args:
            settings: the settings with the tiers and their limits.
            store: the sessions in the database, or None if there is no database.
            reservations: the reservations of running requests.
        """
        self._store = store
        self._reservations = reservations
        self._priced = settings.priced
        self._tiers = {tier.name: tier.session for tier in settings.tiers if tier.session.limited}
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def open(self, requested: RequestedSession, key: Key | None) -> Session | None:
        """Return the session of a request, or None if it has neither a name nor limits.

        Args:
            requested: the session that it names.
            key: its key, or None.

        Raises:
            BadRequest: if it sets limits that cannot be kept, or names another session than that
                of its key.
            Unavailable: if the limits of its key cannot be kept.
        """
        of_key = None if key is None else key.limits.session
        name = "" if key is None else key.name
        session_id, explicit = requested.id, requested.explicit
        if of_key is not None and of_key.single:
            if explicit and session_id != name:
                raise BadRequest(
                    f"All requests of this API key are the session '{name}', not '{session_id}': "
                    f"leave '{ID_HEADER}' and 'session.id' out",
                    param=ID_HEADER,
                )
            session_id, explicit = name, True
        self._check(requested, session_id)
        operator = SessionLimits() if of_key is None else of_key
        if operator.max_cost is not None and not self._priced:
            raise Unavailable(
                "The sessions of this API key have a limit of cost, which the server cannot check "
                "without prices."
            )
        session = Session(name, session_id, explicit, requested.limits, operator, self._tiers)
        return session if session.limited or session_id is not None else None

    async def allowance(self, session: Session) -> Allowance:
        """Return what a request may use now of the limits of its session.

        Raises:
            Unavailable: if the database does not respond.
        """
        if session.id is None:  # a session by itself
            return allowance(session, SessionState(), datetime.now(UTC))
        if self._store is None or not (session.limited or session.explicit):
            return UNLIMITED
        await self._reservations.wait_for_session(session.key, session.id)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                state = await self._store.state(session.key, session.id)
        except Exception as error:  # each driver has exceptions of its own
            logger.warning("The limits of sessions cannot be checked: %s", reason(error))
            raise _unavailable() from error
        return allowance(session, state, datetime.now(UTC))

    async def admit(
        self, session: Session | None, admit: Admit, reserve: Reserve
    ) -> SessionAdmission:
        """Admit a request with what is left in its session, and reserve its worst case.

        If a request in another gateway reserves it first, the request is admitted again, with
        what is left then.

        Args:
            session: its session, or None.
            admit: admits it within an allowance.
            reserve: reserves its worst case, against the limits of a session or not.

        Raises:
            SessionLimitExceeded: if too little is left.
            Unavailable: if the limits cannot be checked now.
        """
        if session is None:
            admission = await admit(UNLIMITED)
            return SessionAdmission(admission, await reserve(admission, None), {})
        if session.id is None or not (session.limited or session.explicit):
            return await self._try(session, admit, reserve)
        async with self._turn(session.key, session.id):
            return await self._retry(session, admit, reserve)

    @asynccontextmanager
    async def _turn(self, key: str, session_id: str) -> AsyncIterator[None]:
        """Admit the requests of a session one by one, so that few have to be admitted again.

        A request whose turn does not come within `PATIENCE_SECONDS` is admitted all the same: the
        reservations are what keeps the limits.
        """
        lock = self._locks.setdefault((key, session_id), asyncio.Lock())
        acquired = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                acquired = await lock.acquire()
        try:
            yield
        finally:
            if acquired:
                lock.release()

    async def _retry(self, session: Session, admit: Admit, reserve: Reserve) -> SessionAdmission:
        for _ in range(MAX_TRIES):
            try:
                return await self._try(session, admit, reserve)
            except AllowanceChanged:
                continue
        raise RateLimited("Too many concurrent requests of this session. Try again.", headers=SOON)

    async def _try(self, session: Session, admit: Admit, reserve: Reserve) -> SessionAdmission:
        left = await self.allowance(session)
        headers = remaining_headers(session, left)
        try:
            admission = await admit(left)
        except SessionLimitExceeded as error:
            error.headers |= headers
            raise
        reserved = session if session.id is not None and left != UNLIMITED else None
        return SessionAdmission(admission, await reserve(admission, reserved), headers)

    def _check(self, requested: RequestedSession, session_id: str | None) -> None:
        """Check that the limits that a request sets can be kept.

        Raises:
            BadRequest: if they cannot.
        """
        limits = requested.limits
        if not limits.limited:
            return
        if session_id is None:
            raise BadRequest(
                f"Limits of a session require its name, in 'session.id' or '{ID_HEADER}'",
                param="session.id",
            )
        if self._store is None:
            raise BadRequest(
                "Limits of a session are not supported by this server, which has no ledger "
                "(setting ledger.url): leave them out",
                param="session",
            )
        if limits.max_cost is not None and not self._priced:
            raise BadRequest(
                "'session.max_cost' is not supported by this server, which has no prices: leave it "
                "out",
                param="session.max_cost",
            )


def _unavailable() -> Unavailable:
    return Unavailable(
        "The limits of this session cannot be checked now. Try again later.", headers=SOON
    )
