"""A completions server over HTTP, its faults told in the engine's own words."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from proctor.server.engines.completions.dialects import StreamedTokens
from proctor.server.errors import EngineUnavailable

SILENCE_SECONDS = 600.0
"""A server that sends nothing for so long is given up: a queue or a prefill takes its time."""

IDLE_SECONDS = 2.0
"""A connection that lay idle for longer is not used again: the server may be closing it."""

JSON = {"content-type": "application/json"}
DATA = b"data:"
DONE = b"[DONE]"
CUT_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""Raised where a server closes a connection that lay idle, in the moment in which it is used."""

MOST_TOLD = 500
"""Characters of the server's own words that are kept for the log."""


class UpstreamError(RuntimeError):
    """The server refused what it should have taken: a fault of the settings, or of ours."""


class UpstreamModel(BaseModel):
    """A model, as the server lists it."""

    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[UpstreamModel]


class _Choice(BaseModel):
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _Event(BaseModel):
    choices: list[_Choice] = []
    error: Any = None


class Upstream:
    """A connection to the server.

    All of its methods raise EngineUnavailable if the server cannot be reached,
    cannot answer now, or says what makes no sense, and Refused if it answers
    that the request is wrong.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Make a client; it connects when it is first used.

        Args:
            base_url: as for OpenAI's clients, up to and with `/v1`.
            api_key: the bearer token to send; empty is none.
            transport: in the place of a network.
        """
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=10, pool=None),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=IDLE_SECONDS),
            transport=transport,
        )

    async def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[StreamedTokens, None]:
        """Stream a completion. Closing the generator closes the connection, and so ends it there.

        The last piece that is of use has a finish.
        """
        finished = False
        try:
            async with self._sent("POST", "completions", orjson.dumps(body)) as response:
                await _check(response)
                # Read to its end, so that the connection can be used again.
                async with aclosing(_lines(response)) as lines:
                    async for line in lines:
                        if (piece := _parse(line)) is not None:
                            finished = finished or piece.finish is not None
                            yield piece
        except httpx.HTTPError as error:
            raise _unavailable("cannot be reached", repr(error)) from error
        if not finished:
            raise EngineUnavailable("the completions server broke off")

    async def models(self) -> list[UpstreamModel]:
        """The models that it serves."""
        response = await self._get("models")
        await _check(response)
        try:
            return _Models.model_validate_json(response.content).data
        except ValidationError as error:
            raise _unavailable("lists no models", str(error)[:MOST_TOLD]) from error

    async def check(self) -> None:
        """Return if the server says that it is well."""
        # `/health` is beside `/v1`; a server without one can at least say what it serves.
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
        """Send a request, and once more if the connection was closed before it was answered."""
        headers = None if content is None else JSON
        request = self._http.build_request(method, url, content=content, headers=headers)
        try:
            response = await self._http.send(request, stream=True)
        except CUT_OFF:
            response = await self._http.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Whole lines. httpx's own would also part them at U+2028, which JSON does not escape."""
    held = b""
    async for part in response.aiter_bytes():
        *whole, held = (held + part).split(b"\n")
        for line in whole:
            yield line


def _parse(line: bytes) -> StreamedTokens | None:
    """What a line of the stream of events says, if it is of use."""
    data = line.removeprefix(DATA).strip()
    if not line.startswith(DATA) or data == DONE:
        return None
    try:
        event = _Event.model_validate_json(data)
    except ValidationError as error:
        raise _unavailable("sent what is no completion", str(error)[:MOST_TOLD]) from error
    if event.error is not None:
        raise _unavailable("gave the request up", str(event.error)[:MOST_TOLD])
    if not event.choices:
        return None
    (choice,) = event.choices[:1]
    if choice.finish_reason not in (None, "stop", "length"):
        raise _unavailable("gave the request up", f"finish_reason: {choice.finish_reason}")
    return StreamedTokens(choice.text, choice.token_ids, choice.finish_reason)


async def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    status = response.status_code
    told = (await response.aread())[:MOST_TOLD].decode(errors="replace")
    if status >= 500 or status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS):
        raise _unavailable(f"answered {status}", told)
    raise UpstreamError(f"the completions server answered {status}: {told}")


def _unavailable(what: str, told: str) -> EngineUnavailable:
    """An error for the client, with the server's own words for the log alone."""
    error = EngineUnavailable(f"the completions server {what}")
    error.add_note(told)
    return error
