"""Authenticates requests, and checks that the scope of the key allows the path."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum

from fastapi import Request
from fastapi.params import Security
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from starlette.datastructures import Headers
from starlette.routing import BaseRoute

from proctor.server.auth.api_key import Key, hash_token, id_of
from proctor.server.auth.store import KeyStore
from proctor.server.config.access import Scope
from proctor.server.errors import SOON, Forbidden, Unauthorized, Unavailable
from proctor.server.storage.errors import reason

logger = logging.getLogger(__name__)

CACHE_SECONDS = 10.0
"""The time for which a key of the database is cached, and after which a revoked key is rejected."""

MAX_CACHED = 4096
"""The maximum number of cached keys; the least recently used are evicted."""

PATIENCE_SECONDS = 5.0
"""The maximum time that a request waits for the database."""


class Access(StrEnum):
    """What a route requires of a request, on a server that requires API keys."""

    PUBLIC = "public"
    USER = "user"
    ADMIN = "admin"


class Authenticator:
    """Authenticates requests by the keys of the settings and of the database.

    Keys are looked up by the hash of the whole token, so that an unknown token takes
    the same steps whether or not a key with its ID exists.
    """

    def __init__(
        self,
        configured: Sequence[Key],
        store: KeyStore | None,
        *,
        required: bool,
        max_cached: int = MAX_CACHED,
    ) -> None:
        """Initialize the authenticator.

        Args:
            configured: the keys of the settings.
            store: the keys of the database, or None if there is no database.
            required: whether requests must have a key.
            max_cached: the maximum number of cached keys of the database.
        """
        self._configured = {key.hash: key for key in configured}
        self._store = store
        self._required = required
        self._max_cached = max_cached
        self._cache: OrderedDict[str, tuple[Key, float]] = OrderedDict()

    async def authorize(self, request: Request, security_scopes: SecurityScopes) -> None:
        """Set `request.state.key`, if the request may use its route.

        A dependency of every route, as `Security(authenticator.authorize, scopes=[access])`.

        Raises:
            Unauthorized: if the route requires a key, and the request has none that is known.
            Forbidden: if the key lacks the scope.
            Unavailable: if the key cannot be looked up now.
        """
        (access,) = security_scopes.scopes
        request.state.key = None
        if not self._required or access == Access.PUBLIC:
            return
        request.state.key = key = await self._identify(request.headers)
        if access == Access.ADMIN and key.scope is not Scope.ADMIN:
            raise Forbidden("This path requires an API key with the scope 'admin'.")

    async def _identify(self, headers: Headers) -> Key:
        token = _token(headers)
        if token is None:
            raise Unauthorized(
                "Missing API key. Send it in the header 'Authorization: Bearer <key>'."
            )
        key = None
        if id_of(token) is not None:
            hashed = hash_token(token)
            key = self._configured.get(hashed) or await self._find(hashed)
        if key is None:
            raise Unauthorized("Invalid API key. Ask the server's operator for a valid one.")
        return key

    async def _find(self, hashed: str) -> Key | None:
        if self._store is None:
            return None
        now = time.monotonic()
        cached, cached_at = self._cache.get(hashed, (None, 0.0))
        if cached is not None and now < cached_at + CACHE_SECONDS:
            return cached
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                stored = await self._store.find(hashed)
        except Exception as error:  # each driver has exceptions of its own
            if cached is not None:
                return cached
            logger.warning("API keys cannot be read: %s", reason(error))
            message = "API keys cannot be looked up now. Try again later."
            raise Unavailable(message, headers=SOON) from error
        if stored is None or stored.revoked is not None:
            self._cache.pop(hashed, None)
            return None
        self._cache[hashed] = (stored.key, now)
        self._cache.move_to_end(hashed)
        if len(self._cache) > self._max_cached:
            self._cache.popitem(last=False)
        return stored.key


def _token(headers: Headers) -> str | None:
    """Return the token of a request, or None: OpenAI's header, or else Anthropic's."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = headers.get("x-api-key", "")
    return token.strip() or None


def declared_access(route: BaseRoute) -> Access | None:
    """Return what a route declares that it requires, None if it declares nothing."""
    if not isinstance(route, APIRoute):
        return None
    for dependency in route.dependencies:
        if isinstance(dependency, Security):
            (access,) = dependency.scopes or ()
            return Access(access)
    return None


async def require_declaration(request: Request) -> None:
    """Refuse requests to routes that do not declare what they require.

    Raises:
        Forbidden: if the route declares nothing.
    """
    if declared_access(request.scope["route"]) is None:
        raise Forbidden("This route does not declare which keys may use it.")
