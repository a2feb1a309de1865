"""What a request may take is held back before it runs, and what it did not take is given back."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.ledger.records import DraftRecord, ReservedAmount
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.auth.api_key import Key
from proctor.server.auth.rate_limits import WorstCase
from proctor.server.errors import ApiError, RateLimited, Unavailable
from proctor.server.generation.base import Admission
from proctor.server.pricing import to_nanos
from proctor.server.storage.errors import reason
from proctor.server.storage.retry import retry_until_done, wait_or_cancel

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""That a request waits for the database."""

CLOSE_SECONDS = 5.0
"""For what is still to be given back when the server stops; a lease that ends does the rest."""

NOTHING = ReservedAmount(0, 0)


class Reservation:
    """What is held back for one request; for this one nothing is.

    Attributes:
        left: headers that tell what its key has left.
        held: how much it is.
        settled: set once what the request did not take is given back, or cannot be.
    """

    def __init__(self) -> None:
        self.left: Mapping[str, str] = {}
        self.held = NOTHING
        self.settled = asyncio.Event()
        self.settled.set()

    def leave(self) -> None:
        """Note that nothing more is sent of the request, whether it is settled or not."""

    def settle(self, draft: DraftRecord) -> None:
        """Begin to give back what the request did not take, once.

        Args:
            draft: what is known of it, and what it took.
        """


class CountedReservation(Reservation):
    """What is held back for one request of a key whose limits count."""

    def __init__(
        self, reservations: "Reservations", key: str, held: ReservedAmount, left: Mapping[str, str]
    ) -> None:
        self.left = left
        self.held = held
        self.key = key
        self.settled = asyncio.Event()
        self._reservations = reservations
        self._settling = False

    def leave(self) -> None:
        """See `Reservation`."""
        if not self.settled.is_set():
            self._reservations.leaving.add(self)

    def settle(self, draft: DraftRecord) -> None:
        """See `Reservation`."""
        if not self._settling:
            self._settling = True
            self.held = draft.held
            self._reservations.run(self._settle(draft))

    async def _settle(self, draft: DraftRecord) -> None:
        await self._reservations.settle(draft)
        self.settled.set()
        self._reservations.leaving.discard(self)


class Reservations:
    """Holds back what requests may take of what their keys have left.

    Attributes:
        leaving: holds of requests of which nothing more is sent, and which are not settled.
    """

    def __init__(
        self, store: ReservationStore | None, price_model: PriceModel, gateway: str
    ) -> None:
        """Begin with nothing held back.

        Args:
            store: the database's; None where there is none.
            price_model: what requests may cost.
            gateway: the one whose requests they are; see `Lease`.
        """
        self.leaving: set[CountedReservation] = set()
        self._store = store
        self._price_model = price_model
        self._gateway = gateway
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: list[DraftRecord] = []
        self._writing = asyncio.Lock()

    async def reserve(
        self, key: Key | None, name: str, admission: Admission, seconds: float, now: datetime
    ) -> Reservation:
        """Hold back what a request may take at most, until it is settled.

        Nothing is held for a key whose limits do not count anything.

        Args:
            key: whose the request is.
            name: the request's, the `id` of its row.
            admission: what it was granted.
            seconds: how long it may take.
            now: when it came, the `time` of its row.

        Raises:
            RateLimited: if there is not enough left.
            QuotaExceeded: if there is not enough money left.
            Unavailable: if that cannot be known now.
        """
        if key is None or not key.limits.counted:
            return Reservation()
        if self._store is None:
            raise Unavailable("this key has limits, and this server no ledger to count in")
        want = self._want(key, admission, seconds)
        leaving = self._leaving(key)
        try:
            left = await self._reserve(self._store, name, key, want, now)
        except RateLimited:
            # Those whose clients have left are no reason to refuse what their end leaves room for.
            leaving |= self._leaving(key)
            if not leaving:
                raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    for hold in leaving:
                        await hold.settled.wait()
            left = await self._reserve(self._store, name, key, want, now)
        return CountedReservation(self, key.name, ReservedAmount(want.tokens, want.nanos), left)

    async def settle(self, draft: DraftRecord) -> None:
        """Give back what a request that has ended did not take.

        Those that end while others are settled are settled next, together. Where it
        fails, the request's row settles it.
        """
        self._ended.append(draft)
        async with self._writing:
            ended, self._ended = self._ended, []
            if not ended or self._store is None:
                return
            try:
                await self._store.settle(ended, datetime.now(UTC))
            except Exception as error:  # drivers have their own
                logger.warning("holds are left for the ledger to settle: %s", reason(error))

    async def _reserve(
        self, store: ReservationStore, name: str, key: Key, want: WorstCase, now: datetime
    ) -> Mapping[str, str]:
        holding = asyncio.ensure_future(store.reserve(name, key, want, now, self._gateway))
        try:
            # Shielded: nobody knows how far a transaction that is cancelled has come.
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(holding)
        except ApiError:
            raise
        except BaseException as error:
            self._undo(store, holding, name)
            if not isinstance(error, Exception):
                raise
            logger.warning("what keys have left cannot be read: %s", reason(error))
            told = "what this key has left cannot be known now: try again later"
            raise Unavailable(told, headers={"retry-after": "5"}) from error

    def _leaving(self, key: Key) -> set[CountedReservation]:
        return {hold for hold in self.leaving if hold.key == key.name}

    def _want(self, key: Key, admission: Admission, seconds: float) -> WorstCase:
        generated = sum(job.sampling.max_tokens for job in admission.jobs)
        nanos = 0
        if key.limits.spending:
            most = self._price_model.most(admission.prompt_tokens, generated, seconds)
            if most is None:
                raise Unavailable("this key has a limit of money, and this server no prices")
            nanos = to_nanos(most)
        return WorstCase(admission.prompt_tokens + generated, nanos)

    def _undo(
        self, store: ReservationStore, holding: "asyncio.Future[dict[str, str]]", name: str
    ) -> None:
        """Release a hold that nobody waits for any more, once it is known whether it was made."""

        async def undo() -> None:
            with contextlib.suppress(Exception):  # it may have come to the database all the same
                await holding
            await retry_until_done(lambda: store.release(name))

        self.run(undo())

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that goes on when the request that it is for is over."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Wait for what is being given back."""
        await wait_or_cancel(self._tasks, CLOSE_SECONDS)
