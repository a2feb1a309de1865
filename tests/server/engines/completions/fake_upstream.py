"""A scripted completions server, without a network."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

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

Handler = Callable[[dict[str, Any]], httpx.Response]
Chunk = bytes | Exception


LOCAL = LocalModel(
    ByteCodec(MARKERS, opens=True), MARKERS, END, VOCABULARY, {"top_k": 20, "min_tokens": 3}, None
)
IDS = TokenIdDialect(MARKERS)
TEXTS = TextDialect(END, LOCAL.codec.encode)


class ChunkedBody(httpx.AsyncByteStream):
    """A body in several chunks; an exception among them breaks the connection."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def stream(*chunks: Chunk) -> httpx.Response:
    return httpx.Response(200, stream=ChunkedBody(chunks))


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

    def __call__(self, body: dict[str, Any]) -> httpx.Response:
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

    def __call__(self, body: dict[str, Any]) -> httpx.Response:
        reply = self.replies[len(self.requests)]
        self.requests.append(body)
        stop = next((stop for stop in body["stop"] if stop in reply), None)
        text = reply.split(stop)[0] if stop else reply[: body["max_tokens"]]
        ended = stop or len(text) < body["max_tokens"]
        pieces = [event(text=letter) for letter in text]
        return stream(*pieces, event(text="", finish_reason="stop" if ended else "length"), DONE)


def connect(answer: Handler, health: int = 200, **model_fields: Any) -> Upstream:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer key"
        match request.url.path:
            case "/v1/completions":
                return answer(orjson.loads(request.content))
            case "/v1/models":
                model = {"id": "there", "max_model_len": 4096, **model_fields}
                return httpx.Response(200, json={"object": "list", "data": [model]})
            case path:
                assert path == "/health"
                return httpx.Response(health)

    return Upstream("http://upstream/v1", "key", httpx.MockTransport(handle))


def engine(answer: Handler, dialect: Dialect = IDS, health: int = 200) -> CompletionsEngine:
    service = Service("there", 4096, dialect)
    return CompletionsEngine(connect(answer, health), service, LOCAL, "fake")


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


def runaway(body: dict[str, Any]) -> httpx.Response:
    return stream(*[event(text="a" * 1000)] * 1000)


def unreachable(body: dict[str, Any]) -> httpx.Response:
    raise httpx.ConnectError("refused by 10.0.0.7")
