"""Renders the responses of `POST /v1/chat/completions`."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import Channel, TextDelta, TokenUsage, ToolCallDelta
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.engines.base import Engine, Job, TokenLogprob
from proctor.server.engines.tool_calls import CallDelta
from proctor.server.generation.base import (
    ChoiceResult,
    OutputItem,
    Progress,
    PromptLogprobs,
    StreamItem,
)
from proctor.server.renderers.base import ResponseRenderer
from proctor.server.renderers.logprobs import prompt_logprobs
from proctor.server.renderers.reasoning_format import NULLABLE_KEYS, message_keys, with_tags
from proctor.server.schemas.generation import ChatRequest
from proctor.server.transport.sse import PLACEHOLDER, SseTemplate, event

LOGPROBS_KEYS = {Channel.ANSWER: "content", Channel.REASONING: "reasoning_content"}
"""The key of each channel's tokens in `logprobs`."""


class MessageBuilder:
    """Builds the message of one choice.

    Attributes:
        scores: the log probabilities of each channel's tokens.
    """

    def __init__(self, reasoning_format: ReasoningFormat, echo: str = "") -> None:
        """Start a message.

        Args:
            reasoning_format: where the message has the thinking.
            echo: the beginning of the content, before the generated text.
        """
        self._reasoning_format = reasoning_format
        self._texts: dict[str, list[str]] = {"content": [echo]}
        self._texts |= {key: [] for key in NULLABLE_KEYS[reasoning_format]}
        self._calls: list[dict[str, Any]] = []
        self.scores: dict[Channel, list[TokenLogprob]] = {channel: [] for channel in Channel}

    def add(self, item: TextDelta | ToolCallDelta) -> None:
        """Add the next item."""
        if isinstance(item, ToolCallDelta):
            self._add_call(item.delta)
            return
        for key in message_keys(item.channel, self._reasoning_format):
            self._texts[key].append(item.text)
        self.scores[item.channel] += item.scores

    def message(self) -> dict[str, Any]:
        """Return the message; its content is null if it has tool calls only."""
        texts = {key: "".join(parts) or None for key, parts in self._texts.items()}
        if not self._calls:
            return {"role": "assistant", **texts, "content": texts["content"] or ""}
        return {"role": "assistant", **texts, "tool_calls": self._calls}

    def _add_call(self, delta: CallDelta) -> None:
        if delta.index == len(self._calls):
            function = {"name": delta.name, "arguments": ""}
            self._calls.append({"id": delta.id, "type": "function", "function": function})
        self._calls[delta.index]["function"]["arguments"] += delta.arguments


@dataclass(frozen=True, slots=True)
class ChatRenderer(ResponseRenderer):
    """Renders the response to a chat request.

    Attributes:
        request: the request.
        reasoning_format: where the response has the thinking.
        token_bytes: returns the bytes of a token.
    """

    request: ChatRequest
    reasoning_format: ReasoningFormat
    token_bytes: Callable[[int], bytes]

    @property
    def reports_progress(self) -> bool:
        """Whether the response is streamed, without its thinking."""
        return self.reasoning_format is ReasoningFormat.HIDDEN and bool(self.request.stream)

    @property
    def with_ids(self) -> bool:
        """Whether the response has token ids."""
        return bool(self.request.return_token_ids)

    @property
    def echo(self) -> str:
        """The beginning of each message, before the generated text."""
        return self.request.messages[-1].unfinished().text if self.request.echo else ""

    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        request, tools = self.request, self.envelope.admission.tools
        reader = None if tools is None else tools.reader()
        answer = AnswerText(request.stop or (), reader, request.min_tokens or 0)
        return ChannelSplitter(
            engine.codec,
            engine.model,
            job,
            index,
            answer,
            self._scored_channels(),
            with_ids=self.with_ids,
        )

    def encoder(self, continuous_usage: bool) -> "ChatSseEncoder":
        return ChatSseEncoder(self, continuous_usage)

    def transform(
        self, events: AsyncGenerator[StreamItem | ChoiceResult, None]
    ) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        return with_tags(events) if self.reasoning_format is ReasoningFormat.TAGS else events

    def _scored_channels(self) -> Collection[Channel]:
        """Return the channels whose logprobs the response has, never those of hidden thinking."""
        thinking = self.request.thinking
        if not self.request.logprobs:
            return ()
        is_hidden = self.reasoning_format is ReasoningFormat.HIDDEN
        if thinking is None or not thinking.logprobs or is_hidden:
            return (Channel.ANSWER,)
        return tuple(Channel)

    def body(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> dict[str, Any]:
        builders = [MessageBuilder(self.reasoning_format, self.echo) for _ in results]
        prompt_fields: dict[str, Any] = {}
        for item in items:
            if isinstance(item, PromptLogprobs):
                prompt_fields = self._prompt_logprobs(item)
            else:
                builders[item.choice].add(item)
        choices = [
            {
                "index": result.choice,
                "message": builders[result.choice].message(),
                "logprobs": self._logprobs(builders[result.choice].scores),
                "finish_reason": self.envelope.admission.finish_reason(result.finish, result.calls),
                "thinking": self.envelope.thinking(result),
                **self._token_ids(result.token_ids),
            }
            for result in sorted(results, key=lambda result: result.choice)
        ]
        return {
            **self.envelope.common_fields("chat.completion"),
            "choices": choices,
            **prompt_fields,
            **self._prompt_ids(),
            **self.envelope.usage_and_cost(results),
        }

    def _prompt_logprobs(self, item: PromptLogprobs) -> dict[str, Any]:
        num_top = self.request.prompt_logprobs or 0
        return {"prompt_logprobs": prompt_logprobs(item.scores, num_top, self.token_bytes)}

    def _prompt_ids(self) -> dict[str, Any]:
        return (
            {"prompt_token_ids": self.envelope.admission.jobs[0].prompt_ids}
            if self.with_ids
            else {}
        )

    def _token_ids(self, token_ids: Sequence[int]) -> dict[str, Any]:
        return {"token_ids": token_ids} if self.with_ids else {}

    def role_chunk(self, index: int, used: TokenUsage | None) -> dict[str, Any]:
        """Return the first chunk of a choice."""
        chunk = self._chunk(index, {"role": "assistant", "content": ""}, used)
        return {**chunk, **self._prompt_ids()}

    def echo_chunk(self, index: int, used: TokenUsage | None) -> dict[str, Any]:
        """Return the chunk with the beginning of a choice's message."""
        return self._chunk(index, {"content": self.echo}, used)

    def text_template(self, index: int, channel: Channel) -> dict[str, Any]:
        """Return a chunk with `PLACEHOLDER` in place of the text."""
        keys = message_keys(channel, self.reasoning_format)
        return self._chunk(index, dict.fromkeys(keys, PLACEHOLDER))

    def text_chunk(self, delta: TextDelta) -> dict[str, Any]:
        """Return a chunk of text, with its tokens' scores, its ids and the usage, if requested."""
        keys = message_keys(delta.channel, self.reasoning_format)
        chunk = self._chunk(delta.choice, dict.fromkeys(keys, delta.text), delta.used)
        if delta.scores:
            chunk["choices"][0]["logprobs"] = self._logprobs({delta.channel: delta.scores})
        chunk["choices"][0] |= self._token_ids(delta.token_ids)
        return chunk

    def call_chunk(self, call: ToolCallDelta) -> dict[str, Any]:
        """Return a chunk of a tool call."""
        return self._chunk(call.choice, {"tool_calls": [_call_delta(call.delta)]}, call.used)

    def progress_chunk(self, progress: Progress) -> dict[str, Any]:
        """Return a chunk with the progress of hidden thinking."""
        chunk = self._chunk(progress.choice, {"content": ""}, progress.used)
        chunk["choices"][0]["thinking"] = {
            "tokens": progress.tokens,
            "max_tokens": self.envelope.admission.max_thinking_tokens(progress.choice),
        }
        return chunk

    def last_chunk(
        self, result: ChoiceResult, used: TokenUsage | None, ids_sent: int
    ) -> dict[str, Any]:
        """Return the last chunk of a choice.

        Its content is an empty string, as DeepSeek's example code concatenates it
        unconditionally.

        Args:
            result: the result of the choice.
            used: the usage of the choice, if requested.
            ids_sent: number of its token ids in earlier chunks.
        """
        chunk = self._chunk(result.choice, {"content": ""}, used)
        chunk["choices"][0] |= {
            "finish_reason": self.envelope.admission.finish_reason(result.finish, result.calls),
            "thinking": self.envelope.thinking(result),
            **self._token_ids(result.token_ids[ids_sent:]),
        }
        return chunk

    def usage_chunk(self, results: Sequence[ChoiceResult]) -> dict[str, Any]:
        """Return the chunk after all choices, with the usage of the request."""
        return {
            **self.envelope.common_fields("chat.completion.chunk"),
            "choices": [],
            **self.envelope.usage_and_cost(results),
        }

    def _chunk(
        self, index: int, delta: dict[str, Any], used: TokenUsage | None = None
    ) -> dict[str, Any]:
        nulls = dict.fromkeys(NULLABLE_KEYS[self.reasoning_format])
        choice = {"index": index, "delta": {**nulls, **delta}, "finish_reason": None}
        chunk = {**self.envelope.common_fields("chat.completion.chunk"), "choices": [choice]}
        return chunk if used is None else chunk | self.envelope.choice_usage(index, used)

    def _logprobs(self, scores: Mapping[Channel, Sequence[TokenLogprob]]) -> dict[str, Any] | None:
        logprobs = {
            LOGPROBS_KEYS[channel]: [self._logprob(score) for score in channel_scores]
            for channel, channel_scores in scores.items()
            if channel_scores
        }
        return logprobs or None

    def _logprob(self, score: TokenLogprob) -> dict[str, Any]:
        top = [self._candidate(token, logprob) for token, logprob in score.top]
        return {**self._candidate(score.token, score.logprob), "top_logprobs": top}

    def _candidate(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.token_bytes(token)
        return {"token": text.decode(errors="replace"), "logprob": logprob, "bytes": [*text]}


class ChatSseEncoder:
    """Encodes the response to a chat request as server-sent events."""

    def __init__(self, renderer: ChatRenderer, continuous_usage: bool) -> None:
        """Initialize the encoder of a stream.

        Args:
            renderer: renders the chunks.
            continuous_usage: whether every chunk has the usage of its choice so far.
        """
        self._renderer = renderer
        self._continuous_usage = continuous_usage
        self._templates: dict[tuple[int, Channel], SseTemplate] = {}
        self._ids_sent: Counter[int] = Counter()

    def begin(self, index: int) -> bytes:
        used = TokenUsage(0, 0) if self._continuous_usage else None
        first = event(self._renderer.role_chunk(index, used))
        if not self._renderer.echo:
            return first
        return first + event(self._renderer.echo_chunk(index, used), name=Channel.ANSWER.value)

    def item(self, item: StreamItem) -> bytes:
        match item:
            case ToolCallDelta():
                return event(self._renderer.call_chunk(item), name=item.channel.value)
            case Progress():
                return event(self._renderer.progress_chunk(item))
            case PromptLogprobs():
                return b""
            case _ if not message_keys(item.channel, self._renderer.reasoning_format):
                return b""
            case TextDelta(scores=(), used=None, token_ids=()):
                return self._template(item.choice, item.channel).fill(item.text)
            case _:
                self._ids_sent[item.choice] += len(item.token_ids)
                return event(self._renderer.text_chunk(item), name=item.channel.value)

    def finish(self, result: ChoiceResult) -> bytes:
        used = result.used if self._continuous_usage else None
        return event(self._renderer.last_chunk(result, used, self._ids_sent[result.choice]))

    def usage(self, results: Sequence[ChoiceResult]) -> bytes:
        return event(self._renderer.usage_chunk(results))

    def _template(self, index: int, channel: Channel) -> SseTemplate:
        template = self._templates.get((index, channel))
        if template is None:
            template = SseTemplate(self._renderer.text_template(index, channel), name=channel.value)
            self._templates[index, channel] = template
        return template


def _call_delta(delta: CallDelta) -> dict[str, Any]:
    """Return a delta of a tool call, whose id, type and name are in its first delta only."""
    function: dict[str, Any] = {"arguments": delta.arguments}
    if delta.id is None:
        return {"index": delta.index, "function": function}
    function["name"] = delta.name
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
