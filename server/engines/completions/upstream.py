"""An HTTP client for a completions server, which maps its failures to the engine's exceptions."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from proctor.server.engines.completions.dialects import StreamedTokens
from proctor.server.engines.listed_model import ListedModel, ModelList
from proctor.server.errors import EngineUnavailable

READ_TIMEOUT_SECONDS = 600.0
"""The timeout between two reads; long, as requests wait in the server's queue and for prefill."""

KEEPALIVE_SECONDS = 2.0
"""How long an idle connection is reused; after longer, the server may be closing it."""

JSON = {"content-type": "application/json"}
DATA = b"data:"
DONE = b"[DONE]"
CONNECTION_CLOSED = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""Raised if the server closes an idle connection at the moment when it is reused."""

MAX_DETAIL_CHARACTERS = 500
"""How much of the server's response to an error is logged."""


class UpstreamError(RuntimeError):
    """The server rejected a request (4xx), due to the settings or a bug of the gateway."""


class _Choice(BaseModel):
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _Event(BaseModel):
    choices: list[_Choice] = []
    error: Any = None


class Upstream:
    """A client of the server.

    All methods raise `EngineUnavailable` if the server cannot be reached, is overloaded or fails,
    or sends an invalid response, and `UpstreamError` if it rejects the request.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Create a client; it connects on first use.

        Args:
            base_url: as for OpenAI's clients, including `/v1`.
            api_key: the bearer token; empty sends none.
            transport: replaces the network in tests.
        """
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=10, pool=None),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
            transport=transport,
        )

    async def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[StreamedTokens, None]:
        """Stream a completion; the last event with content has a finish reason.

        Closing the generator closes the connection, on which the server aborts the completion.
        """
        finished = False
        try:
            async with self._sent("POST", "completions", orjson.dumps(body)) as response:
                await _check(response)
                # Read to the end, so that the connection can be reused.
                async with aclosing(_lines(response)) as lines:
                    async for line in lines:
                        if (event := _parse(line)) is not None:
                            finished = finished or event.finish is not None
                            yield event
        except httpx.HTTPError as error:
            raise _unavailable("cannot be reached", repr(error)) from error
        if not finished:
            raise EngineUnavailable("the completions server closed the stream early")

    async def models(self) -> list[ListedModel]:
        """Return the models that the server lists."""
        response = await self._get("models")
        await _check(response)
        try:
            return ModelList.model_validate_json(response.content).data
        except ValidationError as error:
            detail = str(error)[:MAX_DETAIL_CHARACTERS]
            raise _unavailable("sent an invalid list of models", detail) from error

    async def check(self) -> None:
        """Return if the server reports that it is healthy."""
        # `/health` is next to `/v1`. A server without it should at least list its models.
        root = str(self._http.base_url).rstrip("/").removesuffix("/v1")
        response = await self._get(f"{root}/health")
        if response.status_code == httpx.codes.NOT_FOUND:
            response = await self._get("models")
        await _check(response)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _get(self, url: str) -> httpx.Response:
        try:
            async with self._sent("GET", url) as response:
                await response.aread()
                return response
        except httpx.HTTPError as error:
            raise _unavailable("cannot be reached", repr(error)) from error

    @asynccontextmanager
    async def _sent(
        self, method: str, url: str, content: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request; retry once if the connection was closed before the response."""
        headers = None if content is None else JSON
        request = self._http.build_request(method, url, content=content, headers=headers)
        try:
            response = await self._http.send(request, stream=True)
        except CONNECTION_CLOSED:
            response = await self._http.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield complete lines.

    httpx's `aiter_lines` also splits at U+2028, which JSON strings may contain unescaped.
    """
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _parse(line: bytes) -> StreamedTokens | None:
    """Parse a line of the event stream; return None if it has no choice."""
    data = line.removeprefix(DATA).strip()
    if not line.startswith(DATA) or data == DONE:
        return None
    try:
        event = _Event.model_validate_json(data)
    except ValidationError as error:
        detail = str(error)[:MAX_DETAIL_CHARACTERS]
        raise _unavailable("sent an invalid event", detail) from error
    if event.error is not None:
        raise _unavailable("aborted the request", str(event.error)[:MAX_DETAIL_CHARACTERS])
    if not event.choices:
        return None
    (choice,) = event.choices[:1]
    if choice.finish_reason not in (None, "stop", "length"):
        raise _unavailable("aborted the request", f"finish_reason: {choice.finish_reason}")
    return StreamedTokens(choice.text, choice.token_ids, choice.finish_reason)


async def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    status = response.status_code
    detail = (await response.aread())[:MAX_DETAIL_CHARACTERS].decode(errors="replace")
    if status >= 500 or status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS):
        raise _unavailable(f"responded with status {status}", detail)
    raise UpstreamError(f"the completions server responded with status {status}: {detail}")


def _unavailable(what: str, detail: str) -> EngineUnavailable:
    """Return an error for the client; the detail is a note, which only goes to the log."""
    error = EngineUnavailable(f"the completions server {what}")
    error.add_note(detail)
    return error
