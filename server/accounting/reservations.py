"""Reserves the worst case of requests before they run, and releases what they have not used."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.ledger.records import DraftRecord, ReservedAmount
from proctor.server.accounting.reservation_store import ReservationStore, SessionClaim
from proctor.server.auth.api_key import Key
from proctor.server.auth.rate_limits import WorstCase
from proctor.server.errors import SOON, ApiError, RateLimited, Unavailable
from proctor.server.generation.base import Admission
from proctor.server.nanos import to_nanos
from proctor.server.sessions.limits import Session
from proctor.server.sessions.store import AllowanceChanged
from proctor.server.storage.errors import reason
from proctor.server.storage.retry import retry_until_done, wait_or_cancel

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""The maximum time that a request waits for the database."""

CLOSE_SECONDS = 5.0
"""The maximum time that a stopping server spends on releasing reservations. What is left is settled
when its lease ends."""

NOTHING_RESERVED = ReservedAmount(0, 0)


class Reservation:
    """The reservation of one request; this base class reserves nothing.

    Attributes:
        rate_limit_headers: the rate-limit headers of the response.
        amount: the reserved amount.
        settled: set when the unused part has been released, or cannot be.
    """

    def __init__(self) -> None:
        self.rate_limit_headers: Mapping[str, str] = {}
        self.amount = NOTHING_RESERVED
        self.settled = asyncio.Event()
        self.settled.set()

    def response_ended(self) -> None:
        """Note that the response has ended, whether or not the reservation is settled."""

    def settle(self, draft: DraftRecord) -> None:
        """Start to release the unused part; only the first call has an effect.

        Args:
            draft: the draft of the request's record, and its actual usage.
        """


class CountedReservation(Reservation):
    """The reservation of a request whose key or session has limits that depend on their usage."""

    def __init__(
        self,
        reservations: "Reservations",
        key: str,
        session: str | None,
        amount: ReservedAmount,
        rate_limit_headers: Mapping[str, str],
    ) -> None:
        self.rate_limit_headers = rate_limit_headers
        self.amount = amount
        self.key = key
        self.session = session
        self.settled = asyncio.Event()
        self._reservations = reservations
        self._settling = False

    def response_ended(self) -> None:
        if not self.settled.is_set():
            self._reservations.unsettled.add(self)

    def settle(self, draft: DraftRecord) -> None:
        if not self._settling:
            self._settling = True
            self.amount = draft.reserved
            self._reservations.run(self._settle(draft))

    async def _settle(self, draft: DraftRecord) -> None:
        await self._reservations.settle(draft)
        self.settled.set()
        self._reservations.unsettled.discard(self)


class Reservations:
    """Creates and settles the reservations of a gateway's requests.

    Attributes:
        unsettled: the reservations that are not settled although the response has ended.
    """

    def __init__(
        self, store: ReservationStore | None, price_model: PriceModel, gateway: str
    ) -> None:
        """Initialize the reservations.

        Args:
            store: the reservations in the database, or None if there is no database.
            price_model: the prices, for the worst case of requests.
            gateway: the ID of this gateway; see `Lease`.
        """
        self.unsettled: set[CountedReservation] = set()
        self._store = store
        self._price_model = price_model
        self._gateway = gateway
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_settle: list[DraftRecord] = []
        self._settle_lock = asyncio.Lock()

    async def reserve(
        self,
        key: Key | None,
        record_id: str,
        admission: Admission,
        seconds: float,
        now: datetime,
        session: Session | None = None,
    ) -> Reservation:
        """Reserve the worst case of a request.

        Nothing is reserved if neither the key nor the session has limits that depend on usage.

        Args:
            key: the key of the request, if it has one.
            record_id: the `id` of the request's row.
            admission: the jobs of the request.
            seconds: the time that the request may take.
            now: when the request was received, the `time` of its row.
            session: the session of the request, if it has limits.

        Raises:
            RateLimited: if a rate limit would be exceeded, or a spending limit only because of
                the reservations of running requests.
            QuotaExceeded: if a spending limit would be exceeded by the spending itself.
            Unavailable: if the limits cannot be checked now.
            AllowanceChanged: if a limit of the session would be exceeded, since concurrent
                requests have reserved what this one was admitted with.
        """
        if session is None and (key is None or not key.limits.counted):
            return Reservation()
        if self._store is None:
            raise Unavailable(
                "This API key has limits, which the server cannot check without a ledger."
            )
        worst_case = self._worst_case(key, session, admission, seconds)
        claim = None if session is None else SessionClaim(session, admission.resolution.label)
        reserve = partial(self._reserve, self._store, record_id, key, worst_case, now, claim)
        name = "" if key is None else key.name
        unsettled = self._unsettled(name)
        try:
            headers = await reserve()
        except RateLimited:
            # Requests whose response has ended release their reservations soon: wait for them, and
            # try once more.
            unsettled |= self._unsettled(name)
            if not unsettled:
                raise
            await _wait_for(unsettled)
            headers = await reserve()
        amount = ReservedAmount(worst_case.tokens, worst_case.nanos, worst_case.thinking)
        session_id = None if session is None else session.id
        return CountedReservation(self, name, session_id, amount, headers)

    async def wait_for_session(self, key: str, session: str) -> None:
        """Wait for the requests of a session whose response has ended, but not their reservation.

        Waits for `PATIENCE_SECONDS` at most.
        """
        if unsettled := {each for each in self._unsettled(key) if each.session == session}:
            await _wait_for(unsettled)

    async def settle(self, draft: DraftRecord) -> None:
        """Release the part of a reservation that a finished request has not used.

        Requests that finish while others are being settled are settled together in the next
        transaction. After a failure, the request's row settles its reservation.
        """
        self._to_settle.append(draft)
        async with self._settle_lock:
            drafts, self._to_settle = self._to_settle, []
            if not drafts or self._store is None:
                return
            try:
                await self._store.settle(drafts)
            except Exception as error:  # each driver has exceptions of its own
                logger.warning(
                    "Reservations cannot be settled before their rows are written: %s",
                    reason(error),
                )

    async def _reserve(
        self,
        store: ReservationStore,
        record_id: str,
        key: Key | None,
        worst_case: WorstCase,
        now: datetime,
        claim: SessionClaim | None,
    ) -> Mapping[str, str]:
        reserving = asyncio.ensure_future(
            store.reserve(record_id, key, worst_case, now, self._gateway, claim)
        )
        try:
            # Shielded, since a transaction that is cancelled may or may not have been committed.
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(reserving)
        except (ApiError, AllowanceChanged):
            raise
        except BaseException as error:
            self._undo(store, reserving, record_id)
            if not isinstance(error, Exception):
                raise
            logger.warning("The limits of requests cannot be checked: %s", reason(error))
            owner = "API key" if claim is None else "session"
            message = f"The limits of this {owner} cannot be checked now. Try again later."
            raise Unavailable(message, headers=SOON) from error

    def _unsettled(self, key: str) -> set[CountedReservation]:
        return {reservation for reservation in self.unsettled if reservation.key == key}

    def _worst_case(
        self, key: Key | None, session: Session | None, admission: Admission, seconds: float
    ) -> WorstCase:
        max_tokens, thinking = admission.max_tokens, admission.total_thinking_tokens
        price_model = self._price_model.of(admission.engine.model.name)
        cost = price_model.worst_case(admission.prompt_tokens, max_tokens, seconds)
        if cost is None and key is not None and key.limits.spending:
            raise Unavailable(
                "This API key has a spending limit, which the server cannot check without prices."
            )
        limits_cost = session is not None or (key is not None and key.limits.spending)
        nanos = to_nanos(cost) if cost is not None and limits_cost else 0
        tokens = admission.prompt_tokens + max_tokens
        return WorstCase(tokens, nanos, thinking, price_model.currency)

    def _undo(
        self,
        store: ReservationStore,
        reserving: "asyncio.Future[dict[str, str]]",
        record_id: str,
    ) -> None:
        """Release the reservation of an abandoned request, once its transaction has ended."""

        async def undo() -> None:
            with contextlib.suppress(Exception):  # may have been committed all the same
                await reserving
            await retry_until_done(lambda: store.release(record_id))

        self.run(undo())

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that may outlive its request."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Wait for reservations that are being settled or released."""
        await wait_or_cancel(self._tasks, CLOSE_SECONDS)


async def _wait_for(reservations: Iterable[CountedReservation]) -> None:
    """Wait until reservations are settled, for `PATIENCE_SECONDS` at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            for reservation in reservations:
                await reservation.settled.wait()
