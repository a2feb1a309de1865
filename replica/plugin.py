"""The endpoint plugin of vLLM's server on a replica, named in `VLLM_PLUGINS`.

It serves the handshake, moves the maxima of running requests, and adds the record of each choice to
the streams of the endpoints by which gateways send requests: `/inference/v1/generate`, and
`/v1/completions`.
"""

import asyncio
import time
from argparse import Namespace
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.datastructures import State
from vllm.config import VllmConfig
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.completion import api_router as completions
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.scale_out.token_in_token_out import api_router as scale_out
from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from proctor.budget import BudgetError
from proctor.budget.processors.integration.arguments import PRIORITY, PROCESSORS
from proctor.budget.processors.integration.worker_calls import (
    call_workers,
    move_maximum,
    read_record,
)
from proctor.budget.processors.params import WIRE_VERSION, EngineBudget, markers_of, read
from proctor.budget.processors.structured_outputs.checked_params import BACKEND, CheckedParams
from proctor.budget.processors.tokenizer.vocabulary import vocabulary_of
from proctor.replica.drain import Drain
from proctor.replica.handshake import PATH, Handshake, digest_markers, digest_vocabulary
from proctor.replica.moving import MOVE_PATH, MoveOrder, move_to_wire
from proctor.replica.record_stream import with_record
from proctor.replica.weights import digest_weights

NAME = "proctor"
"""The plugin's name in `VLLM_PLUGINS`."""

CALL_SECONDS = 30.0
"""How long the engine may take to answer a call; gateways give up earlier."""


class ProctorPlugin:
    """Adds Proctor's routes to vLLM's server."""

    name = NAME
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._started = time.time()
        self._drain = Drain()

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes; those of vLLM with the same path are replaced."""
        app.add_api_route(PATH, self.handshake, methods=["GET"])
        app.add_api_route(MOVE_PATH, self.move, methods=["POST"])
        app.add_api_route("/inference/v1/generate", self.generate, methods=["POST"])
        app.add_api_route("/v1/completions", self.complete, methods=["POST"])

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Prepare the handshake.

        Raises:
            ValueError: if the engine was started without Proctor's logits processor or markers.
        """
        if not isinstance(engine_client, AsyncLLM):
            raise ValueError("the proctor plugin needs vLLM's AsyncLLM")
        self._engine = engine_client.engine_core
        self._drain.install(engine_client)
        names = args.served_model_name or [args.model]
        self._handshake = await asyncio.to_thread(
            _handshake, engine_client.vllm_config, tuple(names), self._started
        )

    async def handshake(self) -> Response:
        """Return the handshake, once the engine has answered a call: it makes progress.

        A server that shuts down, or whose engine does not answer, responds with 503.
        """
        if self._drain.begun:
            return _unavailable("the replica is shutting down")
        try:
            # vLLM waits for its requests before it ends, and for a dead engine for ever.
            async with asyncio.timeout(CALL_SECONDS):
                await call_workers(self._engine, "check_slots")
        except Exception as error:
            return _unavailable(f"the engine does not answer: {type(error).__name__}")
        return JSONResponse(self._handshake.to_wire())

    async def move(self, raw_request: Request) -> Response:
        """Move the maximum of a running request; see `MoveOrder`."""
        try:
            order = MoveOrder.from_wire(await raw_request.json())
        except ValueError as error:
            return _rejected(BudgetError("", str(error)))
        move = await move_maximum(self._engine, order.key, order.target, order.reason)
        return JSONResponse(move_to_wire(move))

    async def generate(self, request: GenerateRequest, raw_request: Request) -> Response:
        """Generate from token ids, as vLLM does, with the record in the stream."""
        if self._drain.begun:
            return _unavailable("the replica is shutting down")
        params = request.sampling_params
        try:
            budget = read(params)
        except BudgetError as error:
            return _rejected(error)
        if backend := (params.extra_args or {}).get(BACKEND):
            request.sampling_params = CheckedParams.of(params, str(backend))
        response: Response = await scale_out.generate(request, raw_request)
        return self._recorded(response, budget)

    async def complete(self, request: CompletionRequest, raw_request: Request) -> Response:
        """Complete a prompt, as vLLM does, with the record in the stream."""
        if self._drain.begun:
            return _unavailable("the replica is shutting down")
        try:
            budget = read(SamplingParams(extra_args=dict(request.vllm_xargs or {})))
        except BudgetError as error:
            return _rejected(error)
        response: Response = await completions.create_completion(request, raw_request)
        return self._recorded(response, budget)

    def _recorded(self, response: Response, budget: EngineBudget | None) -> Response:
        """Add the record to a stream, if the request's budget can have one."""
        if isinstance(response, StreamingResponse) and budget is not None and budget.has_record:
            events = with_record(
                response.body_iterator,  # type: ignore[arg-type]
                budget.budget,
                partial(read_record, self._engine, budget.key),
            )
            response.body_iterator = self._drain.follow(events)
        return response


def _rejected(error: BudgetError) -> Response:
    """Return the response to a budget that cannot be kept, in OpenAI's format."""
    detail = {"message": str(error), "type": "BadRequestError", "param": error.param, "code": 400}
    return JSONResponse({"error": detail}, status_code=400)


def _unavailable(message: str) -> Response:
    detail = {"message": message, "type": "ServiceUnavailableError", "param": None, "code": 503}
    return JSONResponse({"error": detail}, status_code=503, headers={"retry-after": "1"})


def _handshake(config: VllmConfig, names: tuple[str, ...], started: float) -> Handshake:
    model = config.model_config
    runner = config.use_v2_model_runner
    if PROCESSORS[runner] not in (model.logits_processors or ()):
        raise ValueError(f"start the replica with --logits-processors {PROCESSORS[runner]}")
    return Handshake(
        wire=WIRE_VERSION,
        runner="v2" if runner else "v1",
        markers=digest_markers(markers_of(config)),
        vocabulary=digest_vocabulary(vocabulary_of(config)),
        weights=digest_weights(model.model, model.revision),
        models=names,
        context_length=model.max_model_len,
        max_running=config.scheduler_config.max_num_seqs,
        by_priority=config.scheduler_config.policy == PRIORITY,
        started=started,
    )
