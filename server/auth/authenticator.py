"""The guard at the door: whose a request is, and whether that opens what it asks for."""

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
from starlette.routing import BaseRoute

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


class Access(StrEnum):
    """What a route requires of a request, on a server that requires API keys."""

    PUBLIC = "public"
    USER = "user"
    ADMIN = "admin"


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
        if not self._asks or access == Access.PUBLIC:
            return
        request.state.key = key = await self._identify(request.headers.get("authorization"))
        if access == Access.ADMIN and key.scope is not Scope.ADMIN:
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
        raise Forbidden("this route does not declare which keys may use it")
