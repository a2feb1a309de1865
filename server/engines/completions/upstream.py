"""An HTTP client for a completions server, which maps its failures to the engine's exceptions."""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson
from pydantic import BaseModel, ValidationError

from proctor.server.engines.completions.dialects import StreamedTokens
from proctor.server.engines.listed_model import ListedModel, ModelList
from proctor.server.errors import EngineUnavailable
from proctor.server.http_client import CONNECT_SECONDS, JSON, is_success, new_session, send

READ_TIMEOUT_SECONDS = 600.0
"""The timeout between two reads; long, as requests wait in the server's queue and for prefill."""

DATA = b"data:"
DONE = b"[DONE]"

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

    def __init__(self, base_url: str, api_key: str = "") -> None:
        """Create a client; it connects on first use, and belongs to that event loop.

        Args:
            base_url: as for OpenAI's clients, including `/v1`.
            api_key: the bearer token; empty sends none.
        """
        self._base_url = base_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[StreamedTokens, None]:
        """Stream a completion; the last event with content has a finish reason.

        Closing the generator closes the connection, on which the server aborts the completion.
        """
        finished = False
        url = f"{self._base_url}/completions"
        async with self._sent("POST", url, orjson.dumps(body)) as response:
            if not is_success(response.status):
                raise _failure(response.status, await response.read())
            # Read to the end, so that the connection can be reused.
            async with aclosing(split_lines(response.content.iter_any())) as lines:
                async for line in lines:
                    if (event := _parse(line)) is not None:
                        finished = finished or event.finish is not None
                        yield event
        if not finished:
            raise EngineUnavailable("the completions server closed the stream early")

    async def models(self) -> list[ListedModel]:
        """Return the models that the server lists."""
        status, body = await self._get(f"{self._base_url}/models")
        if not is_success(status):
            raise _failure(status, body)
        try:
            return ModelList.model_validate_json(body).data
        except ValidationError as error:
            detail = str(error)[:MAX_DETAIL_CHARACTERS]
            raise _unavailable("sent an invalid list of models", detail) from error

    async def check(self) -> None:
        """Return if the server reports that it is healthy."""
        # `/health` is next to `/v1`. A server without it should at least list its models.
        status, body = await self._get(f"{self._base_url.removesuffix('/v1')}/health")
        if status == HTTPStatus.NOT_FOUND:
            status, body = await self._get(f"{self._base_url}/models")
        if not is_success(status):
            raise _failure(status, body)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, url: str) -> tuple[int, bytes]:
        """Return the status and the body of a response."""
        async with self._sent("GET", url) as response:
            return response.status, await response.read()

    @asynccontextmanager
    async def _sent(
        self, method: str, url: str, body: bytes | None = None
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a request, and yield its response, whatever its status.

        Raises:
            ValueError: if the base URL or the environment's proxy is invalid.
        """
        headers = self._headers if body is None else self._headers | JSON
        try:
            response = await send(
                self._connected(), method, url, body=body, headers=headers, allow_redirects=False
            )
            try:
                yield response
            finally:
                # After the whole body, the connection was released already and stays open.
                response.close()
        except aiohttp.InvalidURL:
            raise
        except aiohttp.ClientError as error:
            raise _unavailable("cannot be reached", repr(error)) from error

    def _connected(self) -> aiohttp.ClientSession:
        """Return the session, which only a running event loop can create."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(
                total=None, connect=CONNECT_SECONDS, sock_read=READ_TIMEOUT_SECONDS
            )
            self._session = new_session(self._base_url, timeout)
        return self._session


async def split_lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield complete lines, without their ends.

    They end at newlines only, and not at U+2028, which JSON strings may contain unescaped.
    """
    rest = b""
    async for chunk in chunks:
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


def _failure(status: int, body: bytes) -> EngineUnavailable | UpstreamError:
    """Return the error for a response that is no success."""
    detail = body[:MAX_DETAIL_CHARACTERS].decode(errors="replace")
    if status >= 500 or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS):
        return _unavailable(f"responded with status {status}", detail)
    return UpstreamError(f"the completions server responded with status {status}: {detail}")


def _unavailable(what: str, detail: str) -> EngineUnavailable:
    """Return an error for the client; the detail is a note, which only goes to the log."""
    error = EngineUnavailable(f"the completions server {what}")
    error.add_note(detail)
    return error
