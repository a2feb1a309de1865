"""CORS, and the rejection of requests from web pages of other origins.

A browser lets any page send requests anywhere, and withholds only the response.
Whether the response is read makes no difference to the work that a request starts,
so such requests are rejected here if they come from origins that are not allowed.
"""

import re

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from proctor.server.config.access import Cors
from proctor.server.errors import OriginNotAllowed

ANY = "*"
LOOPBACK = r"https?://(([a-z0-9_-]+\.)*localhost|127\.0\.0\.1|\[::1\])(:[1-9][0-9]{0,4})?"
"""Origins of pages served by the machine on which the browser runs, as browsers write them."""

SAFE = ("GET", "HEAD", "OPTIONS")
EXPOSED = (
    "retry-after",
    "x-budget-tier",
    "x-cost",
    "x-ignored-fields",
    "x-model",
    "x-request-id",
    "x-session-cost-remaining",
    "x-session-id",
    "x-session-requests-remaining",
    "x-session-thinking-remaining",
    "x-session-tokens-remaining",
)
"""Proctor's headers that a page may read."""

MAX_ORIGIN = 128


class CorsPolicy:
    """The policy on web pages of other origins."""

    def __init__(self, settings: Cors) -> None:
        self._origins = settings.allow_origins
        self._pattern = LOOPBACK if settings.allow_loopback else None

    def add_to(self, app: FastAPI) -> None:
        """Add the CORS middleware, so that allowed pages can read responses."""
        app.add_middleware(
            CORSMiddleware,
            allow_origins=self._origins,
            allow_origin_regex=self._pattern,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=[ANY],
            expose_headers=EXPOSED,
        )

    async def check(self, request: Request) -> None:
        """Check the origin of a request, unless its method is safe or no page sent it.

        Raises:
            OriginNotAllowed: if the origin is not allowed.
        """
        if request.method in SAFE or is_own(request.headers):
            return
        origin = request.headers.get("origin", "")
        if not self._allows(origin):
            raise OriginNotAllowed(
                f"The origin '{origin[:MAX_ORIGIN]}' is not allowed. The server's operator can "
                "allow it in the setting cors.allow_origins."
            )

    def _allows(self, origin: str) -> bool:
        listed = ANY in self._origins or origin in self._origins
        return listed or (
            self._pattern is not None and re.fullmatch(self._pattern, origin) is not None
        )


def is_own(headers: Headers) -> bool:
    """Return whether no page sent a request, or a page of this server's own origin.

    Browsers send `Sec-Fetch-Site` to trustworthy origins only, and `Origin` to all.
    Does not protect against DNS rebinding: a page whose host name resolves to this
    server counts as its own.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == headers.get("host")
