"""Renders the responses of `POST /v1/responses`."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson

from proctor.server.channels.deltas import Channel
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Engine, Finish, Job
from proctor.server.errors import ApiError
from proctor.server.generation.base import ChoiceResult, OutputItem, StreamItem
from proctor.server.renderers.base import ResponseRenderer, answer_splitter
from proctor.server.renderers.response_output import ResponseOutput
from proctor.server.renderers.sse_encoder import SseEncoder
from proctor.server.schemas.openai_responses.events import (
    LAST_EVENTS,
    ResponseEvent,
    ResponseInProgress,
)
from proctor.server.schemas.openai_responses.response import (
    ReasoningOptions,
    ResponseObject,
    ResponseUsage,
    to_response_error,
)
from proctor.server.schemas.openai_responses.translation import ResponsesChatRequest
from proctor.server.storage.responses import MAX_STORED_BYTES
from proctor.server.transport.sse import event


@dataclass(frozen=True, slots=True)
class ResponsesRenderer(ResponseRenderer):
    """Renders the response to a request of the Responses API.

    Attributes:
        request: the request, as a chat request.
        hides_thinking: whether the response has no text of the thinking.
        token_bytes: returns the bytes of a token.
    """

    request: ResponsesChatRequest
    hides_thinking: bool
    token_bytes: Callable[[int], bytes]

    @property
    def reports_usage(self) -> bool:
        return False

    @property
    def reports_progress(self) -> bool:
        return self.hides_thinking and bool(self.request.stream)

    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        tools = self.envelope.admission.tools
        scored = (Channel.ANSWER,) if self.request.logprobs else ()
        return answer_splitter(self.request, tools, engine, job, index, scored=scored)

    def encoder(self) -> "ResponsesSseEncoder":
        return ResponsesSseEncoder(self)

    def body(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> ResponseObject:
        output = self.output(count())
        for item in items:
            output.add(item)
        for result in results:
            output.finish(result)
        return self.end(output, results)

    def output(self, numbers: Iterator[int]) -> ResponseOutput:
        """Return the output as it begins.

        Args:
            numbers: the numbers of the events.
        """
        reasoning = self.request.client_request.reasoning
        return ResponseOutput(
            self.envelope.id,
            self.request.origins,
            self.envelope.admission.turn.recorder(sealed=self.hides_thinking),
            numbers,
            summarizes=reasoning is not None and reasoning.has_summary,
            hides=self.hides_thinking,
            maximum=self.envelope.admission.max_thinking_tokens(0),
            token_bytes=self.token_bytes,
        )

    def response(self) -> ResponseObject:
        """Return the response as it begins."""
        request, envelope = self.request.client_request, self.envelope
        sampling = envelope.admission.jobs[0].sampling
        return {
            "id": envelope.id,
            "object": "response",
            "created_at": envelope.created,
            "completed_at": None,
            "status": "in_progress",
            "background": bool(request.background),
            "error": None,
            "incomplete_details": None,
            "model": envelope.model,
            "output": [],
            "usage": None,
            "instructions": request.instructions,
            "tools": [_echo(tool) for tool in request.tools or ()],
            "tool_choice": _echo(request.tool_choice) or "auto",
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "reasoning": self._reasoning(),
            "text": {"format": {"type": "text"}, **(_echo(request.text) or {})},
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_logprobs": request.top_logprobs or 0,
            "truncation": "disabled",
            "previous_response_id": request.previous_response_id,
            "store": self.request.stored_input is not None,
            "service_tier": "default",
            "metadata": request.metadata or {},
            "prompt_cache_key": request.prompt_cache_key,
            "safety_identifier": request.safety_identifier,
            "user": request.user,
        }

    def end(self, output: ResponseOutput, results: Sequence[ChoiceResult]) -> ResponseObject:
        """Return the response when it is complete, or incomplete because of a limit."""
        (result,) = results
        response = self.response()
        response["status"] = "completed"
        response["completed_at"] = int(time.time())
        if result.finish is Finish.LENGTH:
            response["status"], response["completed_at"] = "incomplete", None
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        response["output"] = output.items
        response["usage"] = self._usage(results)
        response["thinking"] = self.envelope.thinking(result)
        response["cost"] = self.envelope.cost()
        response["store"] = self._can_store(response)
        return response

    def failure(self, output: ResponseOutput, error: ApiError) -> ResponseObject:
        """Return the response when it has failed."""
        response = self.response()
        response["status"] = "failed"
        response["error"] = to_response_error(error)
        response["output"] = output.items
        return response

    def cancelled(self, output: ResponseOutput) -> ResponseObject:
        """Return the response when it was cancelled."""
        response = self.response()
        response["status"] = "cancelled"
        response["output"] = output.items
        return response

    def _can_store(self, response: ResponseObject) -> bool:
        stored = self.request.stored_input
        if stored is None or self.request.client_request.background:
            return stored is not None
        return len(stored) + len(orjson.dumps(response)) <= MAX_STORED_BYTES

    def _reasoning(self) -> ReasoningOptions:
        reasoning = self.request.client_request.reasoning
        if reasoning is None:
            return {"effort": None, "summary": None}
        effort = None if reasoning.effort is None else reasoning.effort.value
        return {"effort": effort, "summary": reasoning.summary or reasoning.generate_summary}

    def _usage(self, results: Sequence[ChoiceResult]) -> ResponseUsage:
        usage = self.envelope.usage(results)
        cached = usage.get("prompt_tokens_details", {"cached_tokens": 0})["cached_tokens"]
        thinking = usage["completion_tokens_details"]["reasoning_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": thinking},
            "total_tokens": usage["total_tokens"],
        }


def _echo(value: Any) -> Any:
    """Return a part of the request as the client has sent it."""
    if value is None or isinstance(value, str):
        return value
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)


class ResponsesSseEncoder(SseEncoder):
    """Encodes the response to a request of the Responses API as server-sent events."""

    def __init__(self, renderer: ResponsesRenderer) -> None:
        self._renderer = renderer
        self._numbers = count()
        self._output = renderer.output(self._numbers)
        self._has_ended = False

    def begin(self, index: int) -> bytes:
        created: ResponseEvent = {
            "type": "response.created",
            "sequence_number": next(self._numbers),
            "response": self._renderer.response(),
        }
        return _encode(created) + _encode(self._in_progress())

    def item(self, item: StreamItem) -> bytes:
        return b"".join(map(_encode, self._output.add(item)))

    def finish(self, result: ChoiceResult) -> bytes:
        return b"".join(map(_encode, self._output.finish(result)))

    def end(self, results: Sequence[ChoiceResult]) -> bytes:
        return self._last(self._renderer.end(self._output, results))

    def error(self, error: ApiError) -> bytes:
        return self._last(self._renderer.failure(self._output, error))

    def cancelled(self) -> ResponseObject:
        """Return the response, which was cancelled, with the items that are complete."""
        return self._renderer.cancelled(self._output)

    def heartbeat(self) -> bytes:
        """Return an event, as clients' timeouts ignore comments; a comment after the end."""
        if self._has_ended:
            return b": end\n\n"
        return _encode(self._in_progress())

    def _in_progress(self) -> ResponseInProgress:
        return {
            "type": "response.in_progress",
            "sequence_number": next(self._numbers),
            "response": self._renderer.response(),
        }

    def _last(self, response: ResponseObject) -> bytes:
        self._has_ended = True
        return _encode(
            {
                "type": LAST_EVENTS[response["status"]],
                "sequence_number": next(self._numbers),
                "response": response,
            }
        )


def _encode(data: ResponseEvent) -> bytes:
    return event(data, name=data["type"])
