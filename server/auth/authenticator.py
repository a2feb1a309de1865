"""The guard at the door: whose a request is, and whether that opens what it asks for."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence

from fastapi import Request

from proctor.server.auth.api_key import Key, hash_token, id_of
from proctor.server.auth.store import KeyStore
from proctor.server.config.access import Scope
from proctor.server.errors import Forbidden, Unauthorized, Unavailable
from proctor.server.storage.errors import reason

logger = logging.getLogger(__name__)

KNOWN_SECONDS = 10.0
"""So long a key of the database is known without a look at it: a revoked one opens no longer."""

MAX_KNOWN = 4096
"""Keys of the database that are known at a time, those longest not asked for making way."""

PATIENCE_SECONDS = 5.0
"""That a request waits for the database."""

ADMIN_PATHS = ("/metrics",)
OPEN_PATHS = ("/v1/tiers",)
USER_PATHS = ("/v1/", "/tokenize", "/detokenize", "/load")


class Authenticator:
    """Knows keys: those of the settings, and those of the database.

    A key is looked up by the hash of its whole token: what is done for one that is
    not known is the same whether there is one of its id or none.
    """

    def __init__(self, listed: Sequence[Key], store: KeyStore | None, *, asks: bool) -> None:
        """Stand at the door.

        Args:
            listed: keys of the settings.
            store: the database's; None where there is no database.
            asks: whether a request must come with a key.
        """
        self._listed = {key.hash: key for key in listed}
        self._store = store
        self._asks = asks
        self._known: OrderedDict[str, tuple[Key, float]] = OrderedDict()

    async def check(self, request: Request) -> None:
        """Return if a request may have what it asks for; `request.state.key` is its key then.

        Raises:
            Unauthorized: if it needs a key and has none that is known.
            Forbidden: if its key does not open that.
            Unavailable: if the key cannot be looked up now.
        """
        request.state.key = None
        scope = scope_of(request.scope["path"]) if self._asks else None
        if scope is None:
            return
        request.state.key = key = await self._identify(request.headers.get("authorization"))
        if scope is Scope.ADMIN and key.scope is not Scope.ADMIN:
            raise Forbidden("this needs a key of the scope 'admin'")

    async def _identify(self, header: str | None) -> Key:
        kind, _, token = (header or "").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise Unauthorized("a key is needed, in the header 'Authorization: Bearer <key>'")
        key = None
        if id_of(token) is not None:
            hashed = hash_token(token)
            key = self._listed.get(hashed) or await self._find(hashed)
        if key is None:
            raise Unauthorized("this key is not known: ask the operator for one")
        return key

    async def _find(self, hashed: str) -> Key | None:
        if self._store is None:
            return None
        now = time.monotonic()
        known, seen = self._known.get(hashed, (None, 0.0))
        if known is not None and now < seen + KNOWN_SECONDS:
            return known
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                kept = await self._store.find(hashed)
        except Exception as error:  # drivers have their own
            if known is not None:
                return known
            logger.warning("keys cannot be read: %s", reason(error))
            told = "keys cannot be looked up now: try again later"
            raise Unavailable(told, headers={"retry-after": "5"}) from error
        if kept is None or kept.revoked is not None:
            self._known.pop(hashed, None)
            return None
        self._known[hashed] = (kept.key, now)
        self._known.move_to_end(hashed)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return kept.key


def scope_of(path: str) -> Scope | None:
    """What a path needs; None is nothing."""
    if path in ADMIN_PATHS:
        return Scope.ADMIN
    if path in OPEN_PATHS:
        return None
    return Scope.USER if path.startswith(USER_PATHS) else None
