"""Invalid requests are refused with a clear error, and do not affect concurrent valid ones."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.schemas.generation import ChatRequest
from tests.server.harness import CHAT, body, running_server, with_timeout

pytestmark = pytest.mark.slow

GOOD = 4
"""Streams that run during each invalid request."""

LIMITS = {"max_body_bytes": 2**16}
POST = b"POST %s HTTP/1.1" % CHAT.encode()


def chat(raw: bytes, *, head: bytes = b"") -> bytes:
    """Return a chat request with this body, as raw HTTP."""
    return (
        b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\n"
        + head
        + b"Content-Length: %d\r\n\r\n" % len(raw)
        + raw
    )


def asking(**fields: Any) -> bytes:
    """Return a chat request with these fields, as raw HTTP."""
    return chat(json.dumps(body(**fields)).encode())


def prompting(prompt: Any) -> bytes:
    """Return a completion request with this prompt, as raw HTTP."""
    raw = chat(json.dumps({"model": "fake", "prompt": prompt}).encode())
    return raw.replace(CHAT.encode(), b"/v1/completions", 1)


def head(line: bytes, *headers: bytes) -> bytes:
    """Return a request without a body, as raw HTTP."""
    return b"\r\n".join([line, b"Host: x", b"Connection: close", *headers, b"", b""])


# What depends on the model and its grammars is in tests/engine/test_structured_output.py.
ADVISORIES = {
    "negative tokens": asking(logit_bias={"-1": 1}),
    "more biases than any model takes": asking(logit_bias={str(token): 1 for token in range(2000)}),
    "stop tokens out of the vocabulary": asking(stop_token_ids=[99999]),
    "more stop tokens than any model takes": asking(stop_token_ids=[*range(129)]),
    "many prompts": prompting(["x"] * 10**4),
    "a prompt of tokens beyond the vocabulary": prompting([10**9]),
    "a prompt of lists of lists": prompting([[["x"]]]),
    "features": asking(features=[{"data": "x"}]),
    "allowed tokens": asking(allowed_token_ids=[0] * 2000),
    "many log probabilities": asking(logprobs=True, top_logprobs=5000),
    "a seed beyond 64 bits": asking(seed=2**64),
    "a tool's pattern that is none": asking(
        tools=[{"type": "function", "function": {"name": "a", "parameters": {"pattern": "("}}}]
    ),
    "many choices": asking(n=10**6),
    "a template of one's own": asking(chat_template="{{ 1 }}"),
    "arguments of a template": asking(chat_template_kwargs={"x": "y"}),
    "a transfer": asking(kv_transfer_params={"do_remote_decode": True}),
    "a cache's salt": asking(cache_salt="x"),
    "embeddings": asking(prompt_embeds="AAAA"),
    "processors": asking(logits_processors=["os.system"]),
    "an engine's arguments": asking(vllm_xargs={"proctor": {}}),
    "more arguments of an engine's": asking(extra_args={"proctor": {}}),
    "an address": asking(api_base="http://169.254.169.254"),
    "an image": asking(
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    ),
    "a text that no context holds": asking(messages=[{"role": "user", "content": "x" * 60000}]),
    "more tokens than there are": asking(max_tokens=10**18),
    "a number that is none": chat(b'{"model": "fake", "messages": [], "temperature": NaN}'),
    "an infinite number": chat(b'{"model": "fake", "messages": [], "temperature": 1e999}'),
    "half a character": chat(
        rb'{"model": "fake", "messages": [{"role": "user", "content": "\ud800"}]}'
    ),
    "a control character": chat(
        b'{"model": "fake", "messages": [{"role": "user", "content": "\x01"}]}'
    ),
    "bytes that are no text": chat(
        b'{"model": "fake", "messages": [{"role": "user", "content": "\xff\xfe"}]}'
    ),
    "a body that is too large": chat(b" " * (2**16 + 1)),
    "values within values": chat(
        b'{"model": "fake", "messages": ' + b"[" * 20000 + b"]" * 20000 + b"}"
    ),
    "fields within fields": chat(b'{"a":' * 10000 + b"1" + b"}" * 10000),
    "two lengths": head(
        b"POST %s HTTP/1.1" % CHAT.encode(), b"Content-Length: 1", b"Content-Length: 2"
    ),
    "a length that is none": head(b"POST %s HTTP/1.1" % CHAT.encode(), b"Content-Length: -1"),
    "a long header": head(b"GET /health HTTP/1.1", b"x: " + b"y" * 2**17),
    "a long path": head(b"GET /" + b"y" * 2**17 + b" HTTP/1.1"),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a path out of the folder": head(b"GET /static/..%2f..%2fapp.py HTTP/1.1"),
    "a path that is nowhere": head(b"GET /v1/admin HTTP/1.1"),
    "a host that rewrites the path": head(b"GET /metrics/../v1/nothing HTTP/1.1"),
}

wrong = st.sampled_from([True, -1, 1e30, "x", "", [], [1], {}, {"a": 1}, [[[]]], 2**70, "☃" * 50])
bad_fields = st.dictionaries(
    st.sampled_from([name for name in ChatRequest.model_fields if name != "user"])
    | st.sampled_from(["budgets", "max_reasoning", "think_hard", "tool_budget"]),
    wrong,
    min_size=1,
    max_size=3,
)
bad_bytes = st.binary(max_size=200) | st.text(max_size=50).map(str.encode)


class Beside:
    """Runs valid streams during each request, and compares them with those of an idle server."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._alone: list[str] = []

    async def __aenter__(self) -> "Beside":
        self._alone = [await self._ask(number) for number in range(GOOD)]
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, raw: bytes) -> tuple[int, dict[str, Any]]:
        """Send bytes while all streams run; return the response's status and body."""
        url = self._http.base_url
        streams = [asyncio.create_task(self._ask(number)) for number in range(GOOD)]
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(raw)
        answer = await with_timeout(reader.read())
        writer.close()
        assert await with_timeout(asyncio.gather(*streams)) == self._alone
        start, _, rest = answer.partition(b"\r\n\r\n")
        status = int(start.split(b" ", 2)[1])
        return status, json.loads(rest) if rest[:1] == b"{" else {}

    async def _ask(self, number: int) -> str:
        """Return the chunks of a stream without ids and times."""
        request = body(
            messages=[{"role": "user", "content": f"question {number}"}],
            stream=True,
            max_thinking_tokens=20 + number,
        )
        chunks = []
        async with self._http.stream("POST", CHAT, json=request) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    chunks.append(json.dumps([chunk["choices"], chunk.get("usage")]))
        return "\n".join(chunks)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def beside() -> AsyncIterator[Beside]:
    async def take_turns(*_: object) -> None:
        await asyncio.sleep(0)

    engine = FakeEngine(lambda job: Script(("abcdefgh" * 5,), "answer"), before_token=take_turns)
    async with (
        running_server(engine, limits=LIMITS) as url,
        httpx.AsyncClient(base_url=url) as http,
        Beside(http) as streams,
    ):
        yield streams


def assert_told(status: int, answer: dict[str, Any]) -> None:
    """Check that a response is a client error with a message."""
    assert 400 <= status < 500, answer
    assert answer["error"]["type"] == "invalid_request_error"
    assert len(answer["error"]["message"]) > 10


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ADVISORIES)
async def test_requests_known_from_advisories_are_refused(name: str, beside: Beside) -> None:
    assert_told(*await beside.send(ADVISORIES[name]))


@pytest.mark.asyncio(loop_scope="module")
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(fields=bad_fields)
async def test_invalid_fields_are_refused(fields: dict[str, Any], beside: Beside) -> None:
    status, answer = await beside.send(asking(**fields))

    if status != 200:  # a few of them happen to be valid
        assert_told(status, answer)


@pytest.mark.asyncio(loop_scope="module")
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(raw=bad_bytes)
async def test_invalid_bodies_are_refused(raw: bytes, beside: Beside) -> None:
    assert_told(*await beside.send(chat(raw)))


@pytest.mark.asyncio(loop_scope="module")
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(value=st.binary(max_size=40))
async def test_headers_cannot_be_injected(value: bytes, beside: Beside) -> None:
    raw = json.dumps(body()).encode()
    status, _ = await beside.send(chat(raw, head=b"x-request-id: " + value + b"\r\n"))

    assert status in (200, 400, 404, 413, 431)
