"""A replica without a model: speaks the protocol, obeys budgets, and fails as it is told.

What it generates is a function of the prompt and the position, so that a choice that another
replica resumes must go on as if nothing had happened. It checks the tokens that it is given.
"""

import argparse
import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from proctor.budget import BudgetStateMachine, TokenBudget
from proctor.budget.processors.params import WIRE_VERSION
from proctor.replica.handshake import PATH, Handshake, digest_markers, digest_vocabulary
from proctor.server.engines.fake import END_THINK, END_TURN, MARKERS, VOCABULARY
from tests.server.harness import QuietServer, listening_socket

GENERATE = "/inference/v1/generate"
COMPLETIONS = "/v1/completions"
LETTERS = b"abcdefghijklmnopqrstuvwxyz     .\n"
CONTEXT = 4096


@dataclass
class Faults:
    """How a replica fails, from now on.

    Attributes:
        status: responds to requests with this status.
        break_after: breaks the connection of each request after so many tokens.
        breaks_left: how often it does so; None is always. Replicas may share their faults.
        hangs: neither generates nor answers.
        seconds_per_token: how long each token takes.
        weights: what it tells about its weights.
    """

    status: int | None = None
    break_after: int | None = None
    breaks_left: int | None = None
    hangs: bool = False
    seconds_per_token: float = 0.0
    weights: str = "weights"


@dataclass
class ScriptedReplica:
    """A replica in this process.

    Attributes:
        name: its name, which its responses have not.
        faults: how it fails.
        bodies: the requests so far.
        headers: their headers.
        asked: set once a request has come.
        probed: set once a handshake was sent.
        aborted: set once a client has given a request up.
        url: its base URL while it is serving.
        has_plugin: whether it has Proctor's plugin; otherwise it is reached by completions.
        keeps_budgets: whether it has Proctor's logits processor.
        context_length: what its list of models says, if anything.
        api_key: what requests must have, if anything.
    """

    name: str = "replica"
    faults: Faults = field(default_factory=Faults)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    probed: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    has_plugin: bool = True
    keeps_budgets: bool = True
    context_length: int | None = CONTEXT
    api_key: str = ""

    @property
    def app(self) -> Starlette:
        """Its ASGI application."""
        return Starlette(
            routes=[
                Route(PATH, self._handshake),
                Route("/v1/models", self._models),
                Route(GENERATE, self._generate, methods=["POST"]),
                Route(COMPLETIONS, self._generate, methods=["POST"]),
            ]
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ScriptedReplica"]:
        """Serve it on a loopback port."""
        with listening_socket() as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            config = uvicorn.Config(self.app, log_level="critical", ws="none", lifespan="off")
            server = QuietServer(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield self
            finally:
                server.should_exit = server.force_exit = True
                await serving

    async def _models(self, request: Request) -> Response:
        model = {"id": "scripted", "max_model_len": self.context_length}
        return JSONResponse({"data": [model]})

    async def _handshake(self, request: Request) -> Response:
        await self._pause()
        if not self.has_plugin:
            return JSONResponse({"detail": "Not Found"}, 404)
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        self.probed.set()
        return JSONResponse(handshake(self.faults.weights).to_wire())

    async def _generate(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.asked.set()
        await self._pause()
        if self.faults.status is not None:
            return JSONResponse({"error": {"message": "told to fail"}}, self.faults.status)
        if not body["stream"]:
            return JSONResponse(prompt_logprobs(body["token_ids"]))
        return StreamingResponse(self._stream(body), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        sent, is_over = 0, False
        try:
            for token, attempts, finish in self._generated(body):
                await self._pause()
                if sent == self.faults.break_after and self.faults.breaks_left != 0:
                    if self.faults.breaks_left is not None:
                        self.faults.breaks_left -= 1
                    raise ConnectionResetError
                sent += 1
                yield chunk(token, attempts if self.has_plugin else None, finish)
            usage = {"prompt_tokens_details": {"cached_tokens": 3}}
            yield b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n"
            yield b"data: [DONE]\n\n"
            is_over = True
        finally:
            if not is_over:
                self.aborted.set()

    def _generated(self, body: dict[str, Any]) -> Iterator[tuple[int, list[int], str | None]]:
        if not self.keeps_budgets:
            return iter([(LETTERS[0], [], None)] * 9)
        if "prompt" in body:
            budget = {"proctor": orjson.loads(body["vllm_xargs"]["proctor"])}
            params = {"max_tokens": body["max_tokens"], "extra_args": budget}
            body = {"token_ids": body["prompt"], "sampling_params": params}
        return generate(body)

    async def _pause(self) -> None:
        if self.faults.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(self.faults.seconds_per_token)


def handshake(weights: str = "weights") -> Handshake:
    """Return what a scripted replica tells about itself."""
    return Handshake(
        wire=WIRE_VERSION,
        runner="v1",
        markers=digest_markers(MARKERS),
        vocabulary=digest_vocabulary(VOCABULARY),
        weights=weights,
        models=("scripted",),
        context_length=CONTEXT,
        max_running=64,
        by_priority=True,
        started=time.time(),
    )


def generate(body: dict[str, Any]) -> Iterator[tuple[int, list[int], str | None]]:
    """Yield each token, the attempts so far, and the finish reason."""
    params = body["sampling_params"]
    wire = params["extra_args"]["proctor"]
    budget, resumed = TokenBudget.from_wire(wire["budget"]), wire["resumed"]
    ids = body["token_ids"]
    prompt, given = ids[: len(ids) - resumed], ids[len(ids) - resumed :]
    machine = BudgetStateMachine(budget, MARKERS, VOCABULARY)
    attempts: list[int] = []
    total = resumed + params["max_tokens"]
    for position in range(total):
        token, attempted = next_token(machine, prompt, position)
        if attempted:
            attempts.append(position)
        machine.advance(token, attempted)
        if position < resumed:
            assert token == given[position], "resumed with other tokens"
            assert attempted == (position in wire["record"]["attempts"]), (
                "resumed with other attempts"
            )
            continue
        last = position + 1 == total
        finish = "stop" if token == END_TURN else "length" if last else None
        yield token, list(attempts), finish
        if finish:
            return


def next_token(
    machine: BudgetStateMachine, prompt: Sequence[int], position: int
) -> tuple[int, bool]:
    """Return the next token, and whether it replaces an attempt to end the thinking."""
    if machine.forced is not None:
        return machine.forced, False
    number = int.from_bytes(
        hashlib.blake2b(f"{prompt[-40:]}{position}".encode(), digest_size=8).digest(), "big"
    )
    wishes = (END_THINK if machine.thinking else END_TURN) if number % 5 == 0 else None
    token = LETTERS[number % len(LETTERS)] if wishes is None else wishes
    if token == END_TURN and machine.bars_eos:
        return LETTERS[0], False
    if machine.suppresses_close and token in machine.closing_tokens:
        return machine.continuation[0], True
    return token, False


def chunk(token: int, attempts: list[int] | None, finish: str | None) -> bytes:
    """Return an event as vLLM sends it, with the record of attempts, if there is one."""
    choice = {"index": 0, "finish_reason": finish, "token_ids": [token], "logprobs": None}
    event: dict[str, Any] = {"choices": [choice], "usage": None}
    if attempts is not None:
        event["proctor"] = {"attempts": attempts, "moves": []}
    return b"data: " + orjson.dumps(event) + b"\n\n"


def prompt_logprobs(prompt: Sequence[int]) -> dict[str, Any]:
    """Return the response to a request for the log probabilities of a prompt."""
    entries = [{str(token): {"logprob": -1.0, "rank": 1}} for token in prompt[1:]]
    return {"choices": [], "prompt_logprobs": [None, *entries]}


def main() -> None:
    """Serve a scripted replica in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds-per-token", type=float, default=0.0)
    options = parser.parse_args()
    replica = ScriptedReplica(faults=Faults(seconds_per_token=options.seconds_per_token))
    uvicorn.run(replica.app, port=options.port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
