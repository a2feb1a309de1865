"""What a request may take is held back before it runs."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from server.admission import Admission
from server.bill import Tariff
from server.errors import ApiError, Unavailable
from server.key import Key
from server.keys.limits import Want
from server.keys.store import KeyStore
from server.ledger.store import reason
from server.prices import to_nanos

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""That a request waits for the database."""

MARGIN = timedelta(seconds=60)
"""After a request's time is over, for its row to be written; a hold counts no more then."""


class Purse:
    """Holds back what requests may take of what their keys have left."""

    def __init__(self, store: KeyStore | None, tariff: Tariff) -> None:
        self._store = store
        self._tariff = tariff
        self._undoing: set[asyncio.Task[None]] = set()

    async def hold(
        self, key: Key | None, name: str, admission: Admission, seconds: float
    ) -> Mapping[str, str]:
        """Hold back what a request may take at most; its row in the ledger settles that.

        Nothing is held for a key whose limits do not count anything.

        Args:
            key: whose the request is.
            name: the request's, the `id` of its row.
            admission: what it was granted.
            seconds: how long it may take.

        Returns:
            Headers that tell what is left.

        Raises:
            RateLimited: if there is not enough left.
            QuotaExceeded: if there is not enough money left.
            Unavailable: if that cannot be known now.
        """
        if key is None or not key.limits.counted:
            return {}
        if self._store is None:
            raise Unavailable("this key has limits, and this server no ledger to count in")
        now = datetime.now(UTC)
        want = self._want(key, admission, seconds)
        expires = now + timedelta(seconds=seconds) + MARGIN
        holding = asyncio.ensure_future(self._store.hold(name, key, want, now, expires))
        try:
            # Shielded: nobody knows how far a transaction that is cancelled has come.
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(holding)
        except ApiError:
            raise
        except BaseException as error:
            self._undo(holding, name)
            if not isinstance(error, Exception):
                raise
            logger.warning("what keys have left cannot be read: %s", reason(error))
            told = "what this key has left cannot be known now: try again later"
            raise Unavailable(told, headers={"retry-after": "5"}) from error

    def _want(self, key: Key, admission: Admission, seconds: float) -> Want:
        generated = sum(job.sampling.max_tokens for job in admission.jobs)
        nanos = 0
        if key.limits.spending:
            most = self._tariff.most(admission.prompt_tokens, generated, seconds)
            if most is None:
                raise Unavailable("this key has a limit of money, and this server no prices")
            nanos = to_nanos(most)
        return Want(admission.prompt_tokens + generated, nanos)

    def _undo(self, holding: "asyncio.Future[dict[str, str]]", name: str) -> None:
        """Release a hold that nobody waits for any more, once it is known whether it was made."""

        async def undo() -> None:
            try:
                await holding
                if self._store is not None:
                    await self._store.release(name)
            except Exception as error:
                logger.warning("a hold is left to expire: %s", reason(error))

        task = asyncio.create_task(undo())
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)

    async def aclose(self) -> None:
        """Wait for what is being given back."""
        await asyncio.gather(*self._undoing)
