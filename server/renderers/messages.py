"""Renders the responses of `POST /v1/messages`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic_core import from_json, to_json

from proctor.server.channels.deltas import Channel, TextDelta, ToolCallDelta
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.engines.base import Engine, Finish, Job
from proctor.server.engines.tool_calls import CallDelta
from proctor.server.errors import ApiError
from proctor.server.generation.base import ChoiceResult, OutputItem, Progress, StreamItem
from proctor.server.renderers.base import ResponseRenderer, answer_splitter
from proctor.server.renderers.blocks import Block, BlockKind, kind_of, split_into_blocks
from proctor.server.renderers.sse_encoder import SseEncoder
from proctor.server.schemas.anthropic.response import (
    BlockDelta,
    MessageEnd,
    MessageEvent,
    MessageResponse,
    MessagesUsage,
    OutputBlock,
    OutputToolUse,
    Piece,
    StopReason,
    to_messages_error,
)
from proctor.server.schemas.generation import ChatRequest
from proctor.server.transport.sse import PLACEHOLDER, SseTemplate, event
from proctor.server.turns.turn import ThinkingRecorder


@dataclass(frozen=True, slots=True)
class MessagesRenderer(ResponseRenderer):
    """Renders the response to a request of the Messages API.

    Attributes:
        request: the request, as a chat request.
    """

    request: ChatRequest

    @property
    def reports_usage(self) -> bool:
        return False

    @property
    def reports_progress(self) -> bool:
        return self.hides_thinking and bool(self.request.stream)

    @property
    def hides_thinking(self) -> bool:
        """Whether thinking blocks have no text."""
        return self.request.reasoning_format is ReasoningFormat.HIDDEN

    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        return answer_splitter(self.request, self.envelope.admission.tools, engine, job, index)

    def encoder(self) -> "MessagesSseEncoder":
        return MessagesSseEncoder(self)

    def body(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> MessageResponse:
        (result,) = results
        message = self.message()
        message["content"] = self._blocks(split_into_blocks(items, result))
        message["stop_reason"] = self.stop_reason(result)
        message["stop_sequence"] = result.stop
        message["usage"] = self.usage(results)
        message["thinking"] = self.envelope.thinking(result)
        message["cost"] = self.envelope.cost()
        return message

    def message(self) -> MessageResponse:
        """Return the message as it begins."""
        return {
            "id": self.envelope.id,
            "type": "message",
            "role": "assistant",
            "model": self.envelope.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": self.envelope.admission.prompt_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 0,
            },
        }

    def end(self, results: Sequence[ChoiceResult]) -> MessageEnd:
        """Return the last changes to the message."""
        (result,) = results
        return {
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason(result), "stop_sequence": result.stop},
            "usage": self.usage(results),
            "thinking": self.envelope.thinking(result),
            "cost": self.envelope.cost(),
        }

    def stop_reason(self, result: ChoiceResult) -> StopReason:
        """Return why the message ended."""
        if result.finish is Finish.LENGTH:
            return "max_tokens"
        if result.stop is not None:
            return "stop_sequence"
        return "tool_use" if result.calls else "end_turn"

    def usage(self, results: Sequence[ChoiceResult]) -> MessagesUsage:
        """Return the usage of the whole request."""
        usage = self.envelope.usage(results)
        cached = usage.get("prompt_tokens_details", {"cached_tokens": 0})["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"] - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {
                "thinking_tokens": usage["completion_tokens_details"]["reasoning_tokens"]
            },
        }

    def recorder(self) -> ThinkingRecorder:
        """Return a recorder of the message's thinking."""
        return self.envelope.admission.turn.recorder(sealed=self.hides_thinking)

    def _blocks(self, blocks: Iterable[Block]) -> list[OutputBlock]:
        """Return the content of the message; without an answer, it has an empty text."""
        recorder = self.recorder()
        content = [self._block(block, recorder) for block in blocks]
        if all(block["type"] == "thinking" for block in content):
            content.append({"type": "text", "text": ""})
        return content

    def _block(self, block: Block, recorder: ThinkingRecorder) -> OutputBlock:
        if block.kind is Channel.ANSWER:
            return {"type": "text", "text": block.text}
        first = block.items[0]
        if isinstance(first, ToolCallDelta):
            return {**_tool_use(first.delta), "input": _to_input(block.text)}
        recorder.add(block.text)
        return {
            "type": "thinking",
            "thinking": "" if self.hides_thinking else block.text,
            "signature": recorder.end(block.thinking_tokens),
        }


def _tool_use(call: CallDelta) -> OutputToolUse:
    """Return the block of a tool call without its arguments."""
    return {"type": "tool_use", "id": call.id or "", "name": call.name or "", "input": {}}


def _to_input(arguments: str) -> Any:
    """Return the arguments of a tool call, as far as they go if they were cut off."""
    # As fragments, since there may be integers that do not fit into 64 bits.
    if _is_object(arguments):
        return orjson.Fragment(arguments)
    try:
        value = from_json(arguments, allow_inf_nan=False, allow_partial=True)
    except ValueError:
        return {}
    return orjson.Fragment(to_json(value)) if isinstance(value, dict) else {}


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(from_json(arguments, allow_inf_nan=False), dict)
    except ValueError:
        return False


class MessagesSseEncoder(SseEncoder):
    """Encodes the response to a request of the Messages API as server-sent events."""

    def __init__(self, renderer: MessagesRenderer) -> None:
        self._renderer = renderer
        self._recorder = renderer.recorder()
        self._open: BlockKind | None = None
        self._kinds: list[BlockKind] = []
        self._template: SseTemplate | None = None

    def begin(self, index: int) -> bytes:
        return _event({"type": "message_start", "message": self._renderer.message()}) + PING

    def item(self, item: StreamItem) -> bytes:
        match item:
            case Progress():
                return PING
            case TextDelta() | ToolCallDelta():
                return self._switch_to(item) + self._delta(item)
            case _:
                return b""

    def _switch_to(self, item: TextDelta | ToolCallDelta) -> bytes:
        """Return the events that end the open block and begin the next one, if it is another."""
        kind = kind_of(item)
        if kind == self._open:
            return b""
        return self._stop(item.thinking_tokens) + self._start(kind, item)

    def _start(self, kind: BlockKind, item: TextDelta | ToolCallDelta) -> bytes:
        block: OutputBlock
        if isinstance(item, ToolCallDelta):
            block = _tool_use(item.delta)
            piece: Piece = {"type": "input_json_delta", "partial_json": PLACEHOLDER}
        elif kind is Channel.ANSWER:
            block = {"type": "text", "text": ""}
            piece = {"type": "text_delta", "text": PLACEHOLDER}
        else:
            block = {"type": "thinking", "thinking": "", "signature": ""}
            piece = {"type": "thinking_delta", "thinking": PLACEHOLDER}
        self._open = kind
        self._kinds.append(kind)
        self._template = SseTemplate(self._delta_event(piece), name="content_block_delta")
        index = self._index
        return _event({"type": "content_block_start", "index": index, "content_block": block})

    def _delta(self, item: TextDelta | ToolCallDelta) -> bytes:
        text = item.text if isinstance(item, TextDelta) else item.delta.arguments
        if item.channel is Channel.REASONING:
            self._recorder.add(text)
            if self._renderer.hides_thinking:
                return b""
        return self._template.fill(text) if text and self._template is not None else b""

    def _stop(self, thinking_tokens: int) -> bytes:
        """Return the events that end the open block, if there is one."""
        if self._open is None:
            return b""
        signature = b""
        if self._open is Channel.REASONING:
            record = self._recorder.end(thinking_tokens)
            piece: Piece = {"type": "signature_delta", "signature": record}
            signature = _event(self._delta_event(piece))
        self._open = None
        return signature + _event({"type": "content_block_stop", "index": self._index})

    def finish(self, result: ChoiceResult) -> bytes:
        last = self._stop(result.thinking_tokens)
        if any(kind is not Channel.REASONING for kind in self._kinds):
            return last
        empty = TextDelta(result.choice, Channel.ANSWER, "")
        return last + self._switch_to(empty) + self._stop(result.thinking_tokens)

    def end(self, results: Sequence[ChoiceResult]) -> bytes:
        return _event(self._renderer.end(results)) + _event({"type": "message_stop"})

    def error(self, error: ApiError) -> bytes:
        return event(to_messages_error(error), name="error")

    def heartbeat(self) -> bytes:
        return PING

    @property
    def _index(self) -> int:
        """The index of the block that began last."""
        return len(self._kinds) - 1

    def _delta_event(self, piece: Piece) -> BlockDelta:
        return {"type": "content_block_delta", "index": self._index, "delta": piece}


def _event(data: MessageEvent) -> bytes:
    return event(data, name=data["type"])


PING = _event({"type": "ping"})
