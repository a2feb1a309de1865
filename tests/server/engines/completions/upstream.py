"""A scripted completions server, without a network."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from proctor.budget import TokenBudget
from proctor.server.engines.base import Finish, Job, Sampling
from proctor.server.engines.completions.dialects import Dialect, TextDialect, TokenIdDialect
from proctor.server.engines.completions.discovery import LocalModel, Service
from proctor.server.engines.completions.engine import CompletionsEngine
from proctor.server.engines.completions.upstream import Upstream
from proctor.server.engines.fake import END_TURN, MARKERS, VOCABULARY, ByteCodec

END = "</think>"
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices": [], "usage": {"total_tokens": 9}}\n\n'

Answer = Callable[[dict[str, Any]], httpx.Response]
Part = bytes | Exception


LOCAL = LocalModel(
    ByteCodec(MARKERS, opens=True), MARKERS, END, VOCABULARY, {"top_k": 20, "min_tokens": 3}
)
IDS = TokenIdDialect(MARKERS)
TEXTS = TextDialect(END, LOCAL.codec.encode)


class Parts(httpx.AsyncByteStream):
    """A body that comes in parts, and may break."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            yield part


def stream(*parts: Part) -> httpx.Response:
    return httpx.Response(200, stream=Parts(parts))


def event(**choice: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, **choice}]}) + b"\n\n"


def given(*tokens: int, finish: str | None = None) -> bytes:
    return event(text="?", token_ids=tokens, finish_reason=finish)


@dataclass
class Script:
    """Answers each round with the next of `replies`, as a server does that gives token ids."""

    replies: Sequence[Sequence[int]]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, body: dict[str, Any]) -> httpx.Response:
        said = [*self.replies[len(self.asked)]][: body["max_tokens"]]
        self.asked.append(body)
        stops = {END_TURN, *body["stop_token_ids"]}
        cut = next((at + 1 for at, token in enumerate(said) if token in stops), None)
        said = said[:cut]
        *first, last = said
        pieces = [given(token) for token in first]
        return stream(*pieces, given(last, finish="stop" if cut else "length"), USAGE, DONE)

    def prompts(self) -> list[list[int]]:
        return [body["prompt"] for body in self.asked]


@dataclass
class TextScript:
    """The same, as a server does that gives text and keeps stops to itself."""

    replies: Sequence[str]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, body: dict[str, Any]) -> httpx.Response:
        reply = self.replies[len(self.asked)]
        self.asked.append(body)
        stop = next((stop for stop in body["stop"] if stop in reply), None)
        text = reply.split(stop)[0] if stop else reply[: body["max_tokens"]]
        ended = stop or len(text) < body["max_tokens"]
        pieces = [event(text=letter) for letter in text]
        return stream(*pieces, event(text="", finish_reason="stop" if ended else "length"), DONE)


def connect(answer: Answer, health: int = 200, **listed: Any) -> Upstream:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer key"
        match request.url.path:
            case "/v1/completions":
                return answer(orjson.loads(request.content))
            case "/v1/models":
                model = {"id": "there", "max_model_len": 4096, **listed}
                return httpx.Response(200, json={"object": "list", "data": [model]})
            case path:
                assert path == "/health"
                return httpx.Response(health)

    return Upstream("http://upstream/v1", "key", httpx.MockTransport(handle))


def engine(answer: Answer, dialect: Dialect = IDS, health: int = 200) -> CompletionsEngine:
    service = Service("there", 4096, dialect)
    return CompletionsEngine(connect(answer, health), service, LOCAL, "fake")


def job(max_tokens: int = 200, sampling: Mapping[str, Any] | None = None, **budget: Any) -> Job:
    return Job("job", (1, 2), Sampling(max_tokens, **(sampling or {})), TokenBudget(**budget))


async def generate(over: CompletionsEngine, asked: Job) -> tuple[list[int], Finish | None]:
    tokens: list[int] = []
    finish = None
    async for delta in over.generate(asked):
        assert finish is None
        tokens += delta.token_ids
        finish = delta.finish
    return tokens, finish


def runaway(body: dict[str, Any]) -> httpx.Response:
    return stream(*[event(text="a" * 1000)] * 1000)


def gone(body: dict[str, Any]) -> httpx.Response:
    raise httpx.ConnectError("refused by 10.0.0.7")
