"""The web pages: the playground at `/`, and Swagger UI at `/docs`.

All their files are served by this server, and a content security policy blocks everything else.
Swagger UI comes from the package fastapi-swagger, which has its files.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Security
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from proctor.server.auth.authenticator import Access, Authenticator
from proctor.server.config.settings import Settings

STATIC = Path(__file__).parents[1] / "static"

POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
SWAGGER_HEADERS = {
    # Swagger UI draws its icons from data: URLs, and sets styles in its markup.
    "content-security-policy": f"{POLICY}; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
}


class Assets(StaticFiles):
    """Static files with security headers. Browsers cache them, and revalidate before each use."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response


def add_pages(app: FastAPI, settings: Settings, authenticator: Authenticator) -> None:
    """Add the routes of both pages and their files."""
    assets = Assets(directory=STATIC, packages=[("fastapi_swagger", "resources")])

    public = Security(authenticator.authorize, scopes=[Access.PUBLIC.value])

    @app.get("/page.json", include_in_schema=False, dependencies=[public])
    async def page_settings() -> dict[str, Any]:
        return settings.page.model_dump() | {"asks_for_keys": settings.asks_for_keys}

    app.mount("/static", assets)
    app.add_route("/", _file(assets, "index.html"), include_in_schema=False)
    app.add_route("/docs", _file(assets, "docs.html", SWAGGER_HEADERS), include_in_schema=False)


def _file(
    assets: Assets, name: str, headers: dict[str, str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    async def page(request: Request) -> Response:
        response = await assets.get_response(name, request.scope)
        response.headers.update(headers or {})
        return response

    return page
