"""Which web pages may use the server.

A browser lets any page send a request anywhere, and keeps back no more than the
answer. To what a server does it makes no difference whether the answer is read,
so requests that start work are refused here when they come from foreign pages.
"""

import re

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from proctor.server.config.access import Cors
from proctor.server.errors import OriginNotAllowed

ANY = "*"
LOOPBACK = r"https?://(([a-z0-9_-]+\.)*localhost|127\.0\.0\.1|\[::1\])(:[1-9][0-9]{0,4})?"
"""Origins of pages that come from the machine on which the browser runs, as browsers write them."""

SAFE = ("GET", "HEAD", "OPTIONS")
EXPOSED = ("retry-after", "x-budget-tier", "x-cost", "x-ignored-fields", "x-request-id")
"""Headers of ours that a page may read."""

MAX_TOLD = 128


class CorsPolicy:
    """Knows the pages that may use the server."""

    def __init__(self, settings: Cors) -> None:
        self._listed = settings.allow_origins
        self._pattern = LOOPBACK if settings.allow_loopback else None

    def add_to(self, app: FastAPI) -> None:
        """Let browsers show answers to these pages."""
        app.add_middleware(
            CORSMiddleware,
            allow_origins=self._listed,
            allow_origin_regex=self._pattern,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=[ANY],
            expose_headers=EXPOSED,
        )

    async def check(self, request: Request) -> None:
        """Return if a request comes from such a page, or starts no work, or not from a page.

        Raises:
            ForeignPage: otherwise.
        """
        if request.method in SAFE or is_own(request.headers):
            return
        origin = request.headers.get("origin", "")
        if not self._allows(origin):
            raise OriginNotAllowed(
                f"pages of '{origin[:MAX_TOLD]}' may not use this server: its operator can allow "
                "them by the setting cors.allow_origins"
            )

    def _allows(self, origin: str) -> bool:
        listed = ANY in self._listed or origin in self._listed
        return listed or (
            self._pattern is not None and re.fullmatch(self._pattern, origin) is not None
        )


def is_own(headers: Headers) -> bool:
    """Whether a request comes from no page, or from one of this server's own.

    Browsers say which in `Sec-Fetch-Site`, to servers that they trust; to all
    they say where the page is from.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == headers.get("host")
