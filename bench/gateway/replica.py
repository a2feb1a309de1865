"""A scripted replica: speaks the protocol of `proctor replica`, and generates the script."""

import time
from contextlib import aclosing
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from bench.gateway.asgi import respond_json, send_body, start_stream, while_connected, whole_body
from bench.gateway.engine import thinking_tokens
from bench.gateway.script import PERIOD, StepClocks, letter_ids
from proctor.budget import TokenBudget
from proctor.budget.processors.params import KEY, WIRE_VERSION
from proctor.replica.handshake import PATH, Handshake, digest_markers, digest_vocabulary
from proctor.server.engines.local_model import LocalModel

CONTEXT_LENGTH = 2**30


class ScriptedReplica:
    """An ASGI application in place of vLLM's server."""

    def __init__(self, local: LocalModel, name: str) -> None:
        self._clocks = StepClocks()
        self._ids = letter_ids(local.codec.encode)
        self._end = local.markers.end[0]
        self._handshake = Handshake(
            wire=WIRE_VERSION,
            runner="v1",
            markers=digest_markers(local.markers),
            vocabulary=digest_vocabulary(local.vocabulary),
            weights="",
            models=(name,),
            context_length=CONTEXT_LENGTH,
            by_priority=False,
            max_running=20_000,
            started=time.time(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == PATH:
            await respond_json(send, self._handshake.to_wire())
        else:
            request = orjson.loads(await whole_body(receive))
            await while_connected(receive, self._generate(request, send))

    async def _generate(self, request: dict[str, Any], send: Send) -> None:
        params = request["sampling_params"]
        total, rate, sent = params["max_tokens"], params.get("seed") or 0, 0
        budget = TokenBudget.from_wire(params["extra_args"][KEY]["budget"])
        thinking = thinking_tokens(budget, total) if budget.opened else None
        await start_stream(send)
        async with aclosing(self._clocks.counts(rate, total)) as counts:
            async for count in counts:
                ids = [self._token(position, thinking) for position in range(sent, count)]
                sent = count
                finish = "length" if count == total else None
                await send_body(send, _event(ids, finish), more=True)
        usage = {"usage": {"completion_tokens": total}, "choices": []}
        last = b"data: " + orjson.dumps(usage) + b"\n\ndata: [DONE]\n\n"
        await send_body(send, last, more=False)

    def _token(self, position: int, thinking: int | None) -> int:
        return self._end if position == thinking else self._ids[position % PERIOD]


def _event(ids: list[int], finish: str | None) -> bytes:
    choice = {"index": 0, "token_ids": ids, "logprobs": None, "finish_reason": finish}
    return b"data: " + orjson.dumps({"request_id": "r", "choices": [choice]}) + b"\n\n"
