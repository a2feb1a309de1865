"""The HTTP client of one replica."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLError

import aiohttp

from proctor.budget import EndReason, Move
from proctor.replica.handshake import PATH, Handshake
from proctor.replica.moving import MOVE_PATH, MoveOrder, read_move
from proctor.server.engines.listed_model import ListedModel, ModelList
from proctor.server.engines.replicas.events import EventReader, ReplicaDelta
from proctor.server.errors import EngineUnavailable, UnsupportedRequest
from proctor.server.http_client import CONNECT_SECONDS, new_connector, send


class ReplicaLost(EngineUnavailable):
    """The connection to a replica failed or broke.

    Attributes:
        refused: whether there was none: nothing listens there. A connection that breaks may be
            that of one request only, as behind a router.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class ReplicaFailed(EngineUnavailable):
    """A replica responded with an error that another one might not have.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Address:
    """Where a replica is.

    Attributes:
        origin: its URL without a path; its host is an IP address.
        host: the host and port by which it was found, for the `Host` header.
        name: the host name that its certificate must have; None without TLS.
    """

    origin: str
    host: str
    name: str | None


class ReplicaClient:
    """A client of one replica, whose connections are shared with those of others.

    All methods raise `ReplicaLost` if the connection fails, `ReplicaFailed` if the replica fails
    or is overloaded, and `UnsupportedRequest` if it rejects the request.
    """

    def __init__(self, session: aiohttp.ClientSession, address: Address, api_key: str) -> None:
        """Create a client.

        Args:
            session: the connections.
            address: where the replica is.
            api_key: the bearer token; empty sends none.
        """
        self._session = session
        self._address = address
        self._headers = {"host": address.host}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._open: set[aiohttp.ClientResponse] = set()

    def break_off(self) -> None:
        """Break all connections with a response: whoever reads one gets `ReplicaLost`."""
        for response in self._open:
            response.close()

    async def handshake(self) -> Handshake | None:
        """Return what the replica tells about itself, or None if it has no plugin.

        Raises:
            ValueError: if the handshake is malformed.
        """
        try:
            async with self._sent("GET", PATH) as response:
                body = json.loads(await response.read())
        except ReplicaFailed as error:
            if error.status == 404:
                return None
            raise
        return Handshake.from_wire(body)

    async def identity(self) -> str:
        """Return what generated tokens depend on there, as far as the replica tells.

        With Proctor's plugin, the engine itself has answered. Without, it may be a router.

        Raises:
            ValueError: if the response is malformed.
        """
        handshake = await self.handshake()
        if handshake is not None:
            return handshake.identity
        return ", ".join(model.id for model in await self.models())

    async def models(self) -> list[ListedModel]:
        """Return the models that the replica lists.

        Raises:
            ValueError: if the list is malformed.
        """
        async with self._sent("GET", "/v1/models") as response:
            return ModelList.model_validate_json(await response.read()).data

    async def stream(
        self, path: str, body: bytes, headers: Mapping[str, str], reader: EventReader
    ) -> AsyncGenerator[ReplicaDelta, None]:
        """Stream what the replica generates; closing the generator aborts it there.

        Args:
            path: the path of the endpoint.
            body: the body of the request.
            headers: further headers.
            reader: reads its events.

        Raises:
            RequestFailed: if the replica failed the request.
        """
        async with self._sent("POST", path, body, headers) as response:
            # Not `iter_any`, which has another coroutine for each piece.
            while data := await response.content.readany():
                try:
                    event = reader.read(data)
                except (ValueError, KeyError, TypeError) as error:
                    raise ReplicaLost(f"a replica sent an invalid event: {error}") from error
                if event is not None:
                    yield event
        if not reader.complete:
            raise ReplicaLost("a replica closed the stream early")

    async def generate(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Return the body of a response that is not streamed."""
        async with self._sent("POST", path, body, headers) as response:
            return await response.read()

    async def move_maximum(
        self, key: str, target: int | None, reason: EndReason | None
    ) -> Move | None:
        """Move the maximum of a running request; see `BudgetStateMachine.move_maximum`.

        Args:
            key: the request's key, see `EngineBudget`.
            target: the new maximum, or None to exit early.
            reason: the end reason if it is reached.
        """
        order = MoveOrder(key, target, reason)
        body = json.dumps(order.to_wire()).encode()
        return read_move(json.loads(await self.generate(MOVE_PATH, body, {})))

    @asynccontextmanager
    async def _sent(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a request, and yield its response if that is no error."""
        try:
            response = await send(
                self._session,
                method,
                self._address.origin + path,
                body=body,
                headers={**self._headers, **(headers or {})},
                server_hostname=self._address.name,
            )
        except aiohttp.ClientError as error:
            raise _lost(error) from error
        self._open.add(response)
        try:
            await _check(response)
            yield response
        except aiohttp.ClientError as error:
            raise _lost(error) from error
        finally:
            self._open.discard(response)
            # After the whole body, the connection was released already and stays open.
            response.close()


def new_session() -> aiohttp.ClientSession:
    """Return the connections to all replicas of an engine, without limits of their own."""
    return aiohttp.ClientSession(
        connector=new_connector(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        headers={"content-type": "application/json"},
        auto_decompress=False,
    )


async def _check(response: aiohttp.ClientResponse) -> None:
    """Return if a response is no error.

    Raises:
        UnsupportedRequest: if the replica rejects what the client requested.
        ReplicaFailed: for any other error.
    """
    status = response.status
    if status < 400:
        return
    detail = await response.text()
    if status == 400:
        field, message = _rejection(detail)
        raise UnsupportedRequest(field, message)
    error = ReplicaFailed(f"a replica responded with status {status}", status)
    error.add_note(detail[:500])
    raise error


def _rejection(detail: str) -> tuple[str, str]:
    """Return the field and the message of vLLM's error."""
    try:
        error = json.loads(detail)["error"]
        return str(error.get("param") or ""), str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", "the replica rejects the request"


def _lost(error: aiohttp.ClientError) -> ReplicaLost:
    what = "TLS failed" if isinstance(error, SSLError) else "the connection to a replica failed"
    refused = isinstance(error, aiohttp.ClientConnectorError)
    lost = ReplicaLost(f"{what}: {type(error).__name__}", refused=refused)
    lost.add_note(repr(error))
    return lost
