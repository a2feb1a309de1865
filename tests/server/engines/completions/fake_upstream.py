"""A scripted completions server on a loopback port."""

import asyncio
import inspect
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from proctor.budget import TokenBudget
from proctor.server.engines.base import Finish, Job, Sampling
from proctor.server.engines.completions.dialects import Dialect, TextDialect, TokenIdDialect
from proctor.server.engines.completions.discovery import Service
from proctor.server.engines.completions.engine import CompletionsEngine
from proctor.server.engines.completions.upstream import Upstream
from proctor.server.engines.fake import END_TURN, MARKERS, VOCABULARY, ByteCodec
from proctor.server.engines.local_model import LocalModel

END = "</think>"
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices": [], "usage": {"total_tokens": 9}}\n\n'

MODEL = {"id": "there", "max_model_len": 4096}

Handler = Callable[[dict[str, Any]], "Reply | Awaitable[Reply]"]
Routes = Mapping[str, Handler]


class Fault(Enum):
    """What the server does in the middle of a response: it ends the connection, or nothing more."""

    CLOSE = auto()
    RESET = auto()
    HANG = auto()


@dataclass(frozen=True)
class Reply:
    """A response.

    Attributes:
        status: its status.
        pieces: the pieces of its body, until the first fault.
        headers: its headers.
    """

    status: int = 200
    pieces: Sequence[bytes | Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


LOCAL = LocalModel(
    ByteCodec(MARKERS, opens=True), MARKERS, END, VOCABULARY, {"top_k": 20, "min_tokens": 3}, None
)
IDS = TokenIdDialect(MARKERS)
TEXTS = TextDialect(END, LOCAL.codec.encode)


def stream(*pieces: bytes | Fault) -> Reply:
    return Reply(pieces=pieces)


def listing(*models: dict[str, Any]) -> Reply:
    return Reply(pieces=[orjson.dumps({"object": "list", "data": models})])


def event(**choice: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, **choice}]}) + b"\n\n"


def token_event(*tokens: int, finish: str | None = None) -> bytes:
    return event(text="?", token_ids=tokens, finish_reason=finish)


@dataclass
class Script:
    """Answers each request with the next of `replies`, like a server that returns token ids.

    Attributes:
        replies: the tokens of each reply.
        requests: the bodies received.
    """

    replies: Sequence[Sequence[int]]
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, body: dict[str, Any]) -> Reply:
        tokens = [*self.replies[len(self.requests)]][: body["max_tokens"]]
        self.requests.append(body)
        stops = {END_TURN, *body["stop_token_ids"]}
        cut = next((at + 1 for at, token in enumerate(tokens) if token in stops), None)
        *first, last = tokens[:cut]
        pieces = [token_event(token) for token in first]
        return stream(*pieces, token_event(last, finish="stop" if cut else "length"), USAGE, DONE)

    def prompts(self) -> list[list[int]]:
        return [body["prompt"] for body in self.requests]


@dataclass
class TextScript:
    """Answers like a server that returns text, without the stop strings.

    Attributes:
        replies: the text of each reply.
        requests: the bodies received.
    """

    replies: Sequence[str]
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, body: dict[str, Any]) -> Reply:
        reply = self.replies[len(self.requests)]
        self.requests.append(body)
        stop = next((stop for stop in body["stop"] if stop in reply), None)
        text = reply.split(stop)[0] if stop else reply[: body["max_tokens"]]
        ended = stop or len(text) < body["max_tokens"]
        pieces = [event(text=letter) for letter in text]
        return stream(*pieces, event(text="", finish_reason="stop" if ended else "length"), DONE)


class FakeServer:
    """A completions server, which answers each client as it was told.

    Attributes:
        port: its port.
        paths: the paths requested so far, without the part that is a client's own.
        peers: the clients' ports of these requests.
        abandoned: set once a client has closed a connection before the end of its response.
    """

    def __init__(self) -> None:
        self._server = RawTestServer(self._handle)
        self._routes: list[Routes] = []
        self._clients: list[Upstream] = []
        self.port = 0
        self.paths: list[str] = []
        self.peers: list[int] = []
        self.abandoned = asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeServer"]:
        """Serve, and close all clients at the end."""
        async with self._server:
            assert self._server.port
            self.port = self._server.port
            try:
                yield self
            finally:
                for upstream in self._clients:
                    await upstream.aclose()

    def connect(
        self,
        answer: Handler,
        *,
        models: Callable[[], Reply] = lambda: listing(MODEL),
        health: int = 200,
    ) -> Upstream:
        """Return a client.

        Args:
            answer: returns the reply to the body of a completion.
            models: returns the list of models.
            health: the status of `/health`.
        """
        upstream = Upstream(f"http://127.0.0.1:{self.port}/{len(self._routes)}/v1", "key")
        self._clients.append(upstream)
        self._routes.append(
            {
                "/v1/completions": answer,
                "/v1/models": lambda _: models(),
                "/health": lambda _: Reply(health),
            }
        )
        return upstream

    def engine(
        self, answer: Handler, dialect: Dialect = IDS, *, health: int = 200, **options: Any
    ) -> CompletionsEngine:
        """Return an engine over a client of its own."""
        service = Service("there", 4096, dialect)
        upstream = self.connect(answer, health=health)
        return CompletionsEngine(upstream, service, LOCAL, "fake", **options)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["authorization"] == "Bearer key"
        assert request.transport is not None
        client, slash, path = request.path.removeprefix("/").partition("/")
        self.paths.append(slash + path)
        self.peers.append(request.transport.get_extra_info("peername")[1])
        body = await request.read()
        reply = self._routes[int(client)][slash + path](orjson.loads(body) if body else {})
        try:
            return await _respond(request, await reply if inspect.isawaitable(reply) else reply)
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned.set()
            raise


async def _respond(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    await response.prepare(request)
    for piece in reply.pieces:
        if piece is Fault.HANG:
            await asyncio.Event().wait()
        elif isinstance(piece, Fault):
            assert request.transport is not None
            _break(request.transport, piece)
            break
        else:
            await response.write(piece)
    return response


def _break(transport: asyncio.Transport, fault: Fault) -> None:
    """End a connection."""
    if fault is Fault.RESET:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def job(max_tokens: int = 200, sampling: Mapping[str, Any] | None = None, **budget: Any) -> Job:
    return Job("job", (1, 2), Sampling(max_tokens, **(sampling or {})), TokenBudget(**budget))


async def generate(engine: CompletionsEngine, job: Job) -> tuple[list[int], Finish | None]:
    tokens: list[int] = []
    finish = None
    async for delta in engine.generate(job):
        assert finish is None
        tokens += delta.token_ids
        finish = delta.finish
    return tokens, finish


def runaway(body: dict[str, Any]) -> Reply:
    return stream(*[event(text="a" * 1000)] * 1000)


def broken(body: dict[str, Any]) -> Reply:
    return stream(Fault.RESET)
