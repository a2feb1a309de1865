"""vLLM's own API server over an engine core that follows the script.

Its front is vLLM's: parsing, tokenizing, detokenizing and streaming. Only the process with the
model is replaced.
"""

import asyncio
import os
from contextlib import aclosing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop
from vllm.entrypoints.launchers.api_server.entry import run_server
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.tokenizers import get_tokenizer
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason
from vllm.v1.engine.core_client import EngineCoreClient

from bench.gateway.script import PERIOD, StepClocks, letter_ids


class ScriptedCore:
    """The client of an engine core, in as far as vLLM's server needs it for chats."""

    engine_ranks_managed = (0,)
    resources = SimpleNamespace(engine_dead=False)

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids
        self._clocks = StepClocks()
        self._outputs: asyncio.Queue[EngineCoreOutput] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def get_supported_tasks_async(self) -> tuple[str, ...]:
        return ("generate",)

    async def reset_mm_cache_async(self) -> None:
        pass

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        self._tasks[request.request_id] = asyncio.create_task(self._generate(request))

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            if (task := self._tasks.pop(request_id, None)) is not None:
                task.cancel()

    async def get_output_async(self) -> EngineCoreOutputs:
        """Return all outputs of a step together, as an engine core does."""
        outputs = [await self._outputs.get()]
        with suppress(asyncio.QueueEmpty):
            while True:
                outputs.append(self._outputs.get_nowait())
        return EngineCoreOutputs(outputs=outputs)

    def shutdown(self, timeout: float | None = None) -> None:
        pass

    async def _generate(self, request: EngineCoreRequest) -> None:
        params = request.sampling_params
        assert params is not None
        total, rate, sent = params.max_tokens or 1, params.seed or 0, 0
        async with aclosing(self._clocks.counts(rate, total)) as counts:
            async for count in counts:
                ids = [self._ids[position % PERIOD] for position in range(sent, count)]
                sent = count
                finish = FinishReason.LENGTH if count == total else None
                output = EngineCoreOutput(request.request_id, ids, finish_reason=finish)
                self._outputs.put_nowait(output)
        self._tasks.pop(request.request_id, None)


def serve(model: Path, name: str, port: int) -> None:
    """Run vLLM's server until it is killed."""
    tokenizer = get_tokenizer(str(model))
    ids = letter_ids(lambda text: tokenizer.encode(text, add_special_tokens=False))

    def client(**_: Any) -> ScriptedCore:
        return ScriptedCore(ids)

    os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"  # the script is longer than any context
    EngineCoreClient.make_async_mp_client = staticmethod(client)  # type: ignore[method-assign]
    arguments = ["--model", str(model), "--served-model-name", name, "--port", str(port)]
    # Statistics need an engine.
    arguments += ["--max-model-len", str(2**21), "--disable-log-stats"]
    arguments += ["--disable-uvicorn-access-log"]
    parser = make_arg_parser(FlexibleArgumentParser())
    uvloop.run(run_server(parser.parse_args(arguments)))
