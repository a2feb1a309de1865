"""Idempotency keys: a repeated request gets the response of the first one."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
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
from proctor.server.transport.sse import ErrorEvent, LastEvents
from proctor.server.transport.sse_response import SseResponse

logger = logging.getLogger(__name__)

HEADER = "idempotency-key"
REPLAYED_HEADER = "idempotent-replayed"
TIER_HEADER = "x-budget-tier"
MAX_KEY_LENGTH = 255
MAX_CACHED_BYTES = 2**20
"""The maximum size of a cached response; requests with longer ones run again when repeated."""

PATIENCE_SECONDS = 5.0
"""The maximum time that a request waits for the database."""

CLOSE_SECONDS = 5.0
"""The maximum time for pending writes at shutdown. Claims that remain are released when the
gateway's lease expires."""


class IdempotencyCache:
    """Runs each request with an idempotency key once, and replays its response afterwards."""

    def __init__(self, store: IdempotencyStore | None, lifetime: timedelta) -> None:
        """Initialize the cache.

        Args:
            store: the store of the responses, or None to reject requests with an idempotency key.
            lifetime: how long responses are cached.
        """
        self._store = store
        self._lifetime = lifetime
        self._background: set[asyncio.Task[None]] = set()
        self._releases: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def get_or_run(
        self,
        request: Request,
        digest: str,
        context: RequestContext,
        run: Callable[[], Awaitable[Response]],
    ) -> Response:
        """Return the cached response, or run the request and cache its response.

        Args:
            request: the HTTP request; its header `Idempotency-Key` is its idempotency key.
            digest: the digest of its body, which must be the same for each use of the key.
            context: its API key and deadline.
            run: generates the response.

        Raises:
            BadRequest: if the key is invalid, or was used for a request with another body.
            IdempotencyConflict: if the request with this key is still running.
            Unavailable: if the database does not answer.
            ApiError: if `run` raises it; the idempotency key is released then.
        """
        key = request.headers.get(HEADER)
        if key is None:
            return await run()
        store, claim = self._check(key, digest, context)
        cached = await self._claim(store, claim)
        if cached is not None:
            return _replay(cached, claim)
        try:
            response = await run()
        except Exception:
            await _wait_briefly(self._release(store, claim))
            raise
        except BaseException:
            self._release(store, claim)
            raise
        if isinstance(response, SseResponse):
            chunks = response.body_iterator
            response.body_iterator = self._record(chunks, response, store, claim)
        else:
            await self._save(response, bytes(response.body), store, claim)
        return response

    def _check(
        self, key: str, digest: str, context: RequestContext
    ) -> tuple[IdempotencyStore, Claim]:
        if not 0 < len(key) <= MAX_KEY_LENGTH:
            raise BadRequest(
                f"'{HEADER}' must have 1 to {MAX_KEY_LENGTH} characters.", param=HEADER
            )
        if self._store is None:
            raise BadRequest(
                f"'{HEADER}' is not supported, as this server has no ledger or does not store "
                "responses. Remove the header, or ask the operator to set ledger.url and "
                "ledger.replay_hours.",
                param=HEADER,
            )
        return self._store, Claim(context.name, key, digest)

    async def _claim(self, store: IdempotencyStore, claim: Claim) -> CachedResponse | None:
        """Claim an idempotency key, as `IdempotencyStore.claim` does, within `PATIENCE_SECONDS`.

        Raises:
            Unavailable: if the database does not answer.
        """
        claiming = asyncio.ensure_future(self._claim_or_wait(store, claim))
        try:
            # Shielded: a cancelled transaction may have been committed or not.
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(claiming)
        except BaseException as error:
            self._run_in_background(self._undo_claim(store, claiming, claim))
            if not isinstance(error, Exception):
                raise
            logger.warning("stored responses cannot be read: %s", reason(error))
            message = f"'{HEADER}' cannot be looked up now. Try again later."
            raise Unavailable(message, headers={"retry-after": "5"}) from error

    async def _claim_or_wait(self, store: IdempotencyStore, claim: Claim) -> CachedResponse | None:
        """Claim an idempotency key, after its release if it is being released."""
        release = self._releases.get((claim.key, claim.name))
        cached = await store.claim(claim, datetime.now(UTC))
        if cached is None or cached.media_type is not None:
            return cached
        release = self._releases.get((claim.key, claim.name)) or release
        if release is None:
            return cached
        await asyncio.wait([release])
        return await store.claim(claim, datetime.now(UTC))

    async def _undo_claim(
        self,
        store: IdempotencyStore,
        claiming: "asyncio.Future[CachedResponse | None]",
        claim: Claim,
    ) -> None:
        """Release an idempotency key if the claim, which nothing waits for, succeeds after all."""
        try:
            if await claiming is not None:
                return  # another request has the key
        except Exception:
            logger.debug("a claim failed, and may have been committed", exc_info=True)
        await retry_until_done(lambda: store.give_up(claim))

    async def _save(
        self, response: Response, body: bytes, store: IdempotencyStore, claim: Claim
    ) -> None:
        if response.status_code != 200 or len(body) > MAX_CACHED_BYTES:
            await _wait_briefly(self._release(store, claim))
            return
        tier = response.headers.get(TIER_HEADER, "")
        cached = CachedResponse(claim.digest, response.media_type, tier, body)
        expires = datetime.now(UTC) + self._lifetime
        saving = retry_until_done(lambda: store.keep(claim, cached, expires))
        await _wait_briefly(self._run_in_background(saving))

    async def _record(
        self,
        chunks: AsyncGenerator[bytes, None],
        response: Response,
        store: IdempotencyStore,
        claim: Claim,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a stream; save the stream before its last chunk is sent.

        If the stream fails or is closed early, the idempotency key is released instead.
        """
        body = bytearray()
        is_settled = False
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if len(body) <= MAX_CACHED_BYTES:
                        body += chunk
                    if isinstance(chunk, LastEvents):
                        is_settled = True
                        await self._save(response, bytes(body), store, claim)
                    elif isinstance(chunk, ErrorEvent):
                        is_settled = True
                        await _wait_briefly(self._release(store, claim))
                    yield chunk
        finally:
            if not is_settled:
                self._release(store, claim)

    def _release(self, store: IdempotencyStore, claim: Claim) -> asyncio.Task[None]:
        """Release an idempotency key; requests that claim it in the meantime wait for that."""
        name = (claim.key, claim.name)
        task = self._run_in_background(retry_until_done(lambda: store.give_up(claim)))
        self._releases[name] = task
        task.add_done_callback(lambda _: self._releases.pop(name, None))
        return task

    def _run_in_background(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that is not cancelled if the client disconnects."""
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def aclose(self) -> None:
        """Wait for pending writes, for `CLOSE_SECONDS` at most."""
        await wait_or_cancel(self._background, CLOSE_SECONDS)


def digest_of(body: bytes) -> str:
    """Return the SHA-256 of a request body, which identifies repeated requests."""
    return hashlib.sha256(body).hexdigest()


def open_idempotency_cache(
    database: AsyncEngine | None, settings: LedgerSettings, gateway: str
) -> IdempotencyCache:
    """Return a cache in the ledger's database, which is disabled without a ledger.

    Args:
        database: connects to the database, or None if there is no ledger.
        settings: how long responses are cached; 0 hours disable the cache.
        gateway: the ID of this gateway among those that share the database.
    """
    store = None
    if database is not None and settings.replay_hours:
        store = IdempotencyStore(database, gateway)
    return IdempotencyCache(store, timedelta(hours=settings.replay_hours))


def caches_responses(settings: LedgerSettings) -> bool:
    """Return whether responses are cached, and idempotency keys supported."""
    return bool(settings.url.get_secret_value() and settings.replay_hours)


async def _wait_briefly(task: "asyncio.Task[None]") -> None:
    """Wait for a write for `PATIENCE_SECONDS` at most; it continues in the background."""
    await asyncio.wait({task}, timeout=PATIENCE_SECONDS)


def _replay(cached: CachedResponse, claim: Claim) -> Response:
    if cached.digest != claim.digest:
        raise BadRequest(
            f"'{HEADER}' was used for a request with another body. Use a new key for each request.",
            param=HEADER,
        )
    if cached.media_type is None:
        raise IdempotencyConflict(
            f"The request with this '{HEADER}' is still running. Try again later.",
            headers={"retry-after": "1"},
        )
    headers = {REPLAYED_HEADER: "true", TIER_HEADER: cached.tier}
    return Response(cached.body, media_type=cached.media_type, headers=headers)
