"""`Idempotency-Key`: a request that is sent again gets the answer that it got."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.config.ledger import LedgerSettings
from proctor.server.errors import BadRequest, IdempotencyConflict, Unavailable
from proctor.server.generation.context import RequestContext
from proctor.server.storage.errors import reason
from proctor.server.storage.idempotency import CachedResponse, Claim, IdempotencyStore
from proctor.server.storage.retry import retry_until_done, wait_or_cancel
from proctor.server.transport.sse import DONE, ErrorEvent, SseResponse

logger = logging.getLogger(__name__)

HEADER = "idempotency-key"
REPLAYED = "idempotent-replayed"
TIER = "x-budget-tier"
MAX_NAME = 255
MAX_KEPT = 2**20
"""Bytes of an answer; a longer one is not kept, and made again."""

PATIENCE_SECONDS = 5.0
"""That a request waits for the database."""

CLOSE_SECONDS = 5.0
"""For what is still to be written when the server stops; a lease that ends does the rest."""


class IdempotencyCache:
    """Answers each request that has a name once, and again from what was kept."""

    def __init__(self, store: IdempotencyStore | None, keeps: timedelta) -> None:
        """Keep answers in a store.

        Args:
            store: the database's; None refuses requests that have a name.
            keeps: for how long.
        """
        self._store = store
        self._keeps = keeps
        self._running: set[asyncio.Task[None]] = set()
        self._freeing: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def get_or_run(
        self,
        request: Request,
        digest: str,
        context: RequestContext,
        answer: Callable[[], Awaitable[Response]],
    ) -> Response:
        """The answer, made now if it was not made before.

        Args:
            request: what the client sent; its header `Idempotency-Key` is its name.
            digest: of its body, which must be the same each time.
            context: whose it is, and until when.
            answer: makes the answer.

        Raises:
            BadRequest: if the name is of a request with another body.
            InUse: if that request is running.
            Unavailable: if that cannot be known now.
            ApiError: whatever `answer` raises; the name is free then.
        """
        name = request.headers.get(HEADER)
        if name is None:
            return await answer()
        store, claim = self._claim(name, digest, context)
        kept = await self._taken(store, claim)
        if kept is not None:
            return _replay(kept, claim)
        try:
            response = await answer()
        except Exception:
            await _awhile(self._free(store, claim))
            raise
        except BaseException:
            self._free(store, claim)
            raise
        if isinstance(response, SseResponse):
            parts = response.body_iterator
            response.body_iterator = self._recording(parts, response, store, claim)
        else:
            await self._keep(response, bytes(response.body), store, claim)
        return response

    def _claim(
        self, name: str, digest: str, context: RequestContext
    ) -> tuple[IdempotencyStore, Claim]:
        if not 0 < len(name) <= MAX_NAME:
            raise BadRequest(f"'{HEADER}' must have 1 to {MAX_NAME} characters", param=HEADER)
        if self._store is None:
            raise BadRequest(
                f"'{HEADER}' needs a ledger, in which answers are kept: leave it out, or ask the "
                "operator to set ledger.url and ledger.replay_hours",
                param=HEADER,
            )
        return self._store, Claim(context.name, name, digest)

    async def _taken(self, store: IdempotencyStore, claim: Claim) -> CachedResponse | None:
        """Return who has the name, as `IdempotencyStore.claim` does; one that is over does not.

        Raises:
            Unavailable: if the database does not say.
        """
        claiming = asyncio.ensure_future(self._claimed(store, claim))
        try:
            # Shielded: nobody knows how far a transaction that is cancelled has come.
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(claiming)
        except BaseException as error:
            self._run(self._undo(store, claiming, claim))
            if not isinstance(error, Exception):
                raise
            logger.warning("kept answers cannot be used: %s", reason(error))
            told = f"'{HEADER}' cannot be looked up now: try again later"
            raise Unavailable(told, headers={"retry-after": "5"}) from error

    async def _claimed(self, store: IdempotencyStore, claim: Claim) -> CachedResponse | None:
        freeing = self._freeing.get((claim.key, claim.name))
        kept = await store.claim(claim, datetime.now(UTC))
        if kept is None or kept.media_type is not None:
            return kept
        freeing = self._freeing.get((claim.key, claim.name)) or freeing
        if freeing is None:
            return kept
        await asyncio.wait([freeing])
        return await store.claim(claim, datetime.now(UTC))

    async def _undo(
        self,
        store: IdempotencyStore,
        claiming: "asyncio.Future[CachedResponse | None]",
        claim: Claim,
    ) -> None:
        """Let a name be free that nobody waits for any more, if it was taken after all."""
        try:
            if await claiming is not None:
                return  # it is another's
        except Exception:
            logger.debug("nobody knows whether a name was taken", exc_info=True)
        await retry_until_done(lambda: store.give_up(claim))

    async def _keep(
        self, response: Response, body: bytes, store: IdempotencyStore, claim: Claim
    ) -> None:
        if response.status_code != 200 or len(body) > MAX_KEPT:
            await _awhile(self._free(store, claim))
            return
        tier = response.headers.get(TIER, "")
        kept = CachedResponse(claim.digest, response.media_type, tier, body)
        expires = datetime.now(UTC) + self._keeps
        await _awhile(self._run(retry_until_done(lambda: store.keep(claim, kept, expires))))

    async def _recording(
        self, parts: AsyncIterable[Any], response: Response, store: IdempotencyStore, claim: Claim
    ) -> AsyncIterator[Any]:
        """The parts of a stream, kept before the last of them is sent, or their name is free."""
        body = bytearray()
        whole = False
        try:
            async for part in parts:
                if len(body) <= MAX_KEPT:
                    body += part
                if part == DONE:
                    whole = True
                    await self._keep(response, bytes(body), store, claim)
                elif isinstance(part, ErrorEvent):
                    whole = True
                    await _awhile(self._free(store, claim))
                yield part
        finally:
            if not whole:
                self._free(store, claim)

    def _free(self, store: IdempotencyStore, claim: Claim) -> asyncio.Task[None]:
        """Let the name be free again; whoever asks by it meanwhile waits for that."""
        name = (claim.key, claim.name)
        self._freeing[name] = task = self._run(retry_until_done(lambda: store.give_up(claim)))
        task.add_done_callback(lambda _: self._freeing.pop(name, None))
        return task

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that goes on when the client that it is for has gone."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def aclose(self) -> None:
        """Wait for what is being written."""
        await wait_or_cancel(self._running, CLOSE_SECONDS)


def digest_of(body: bytes) -> str:
    """What is kept of a body, to know it again."""
    return hashlib.sha256(body).hexdigest()


def open_idempotency_cache(
    database: AsyncEngine | None, settings: LedgerSettings, gateway: str
) -> IdempotencyCache:
    """Keep answers in the ledger's database, if there is one and they are to be kept.

    Args:
        database: connects to it; None where there is no ledger.
        settings: for how long answers are kept.
        gateway: which of those that share the database this one is.
    """
    store = None
    if database is not None and settings.replay_hours:
        store = IdempotencyStore(database, gateway)
    return IdempotencyCache(store, timedelta(hours=settings.replay_hours))


def keeps_answers(settings: LedgerSettings) -> bool:
    """Whether answers are kept."""
    return bool(settings.url.get_secret_value() and settings.replay_hours)


async def _awhile(task: "asyncio.Task[None]") -> None:
    """Wait for what is being written; not for long, it is written all the same."""
    await asyncio.wait({task}, timeout=PATIENCE_SECONDS)


def _replay(kept: CachedResponse, claim: Claim) -> Response:
    if kept.digest != claim.digest:
        raise BadRequest(
            f"'{HEADER}' was used for another request: take a new one for each", param=HEADER
        )
    if kept.media_type is None:
        raise IdempotencyConflict(
            f"the request of this '{HEADER}' is running: try again later",
            headers={"retry-after": "1"},
        )
    headers = {REPLAYED: "true", TIER: kept.tier}
    return Response(kept.body, media_type=kept.media_type, headers=headers)
