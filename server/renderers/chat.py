"""Renders the responses of `POST /v1/chat/completions`."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from proctor.server.channels.deltas import Channel, TextDelta, TokenUsage, ToolCallDelta
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.engines.base import Engine, Job, TokenLogprob
from proctor.server.engines.tool_calls import CallDelta
from proctor.server.generation.base import (
    ChoiceResult,
    OutputItem,
    Progress,
    PromptLogprobs,
    StreamItem,
)
from proctor.server.renderers.base import ResponseRenderer, answer_splitter
from proctor.server.renderers.logprobs import prompt_logprobs, token_score
from proctor.server.renderers.reasoning_format import (
    NULLABLE_KEYS,
    MessageKey,
    message_keys,
    with_tags,
)
from proctor.server.renderers.sse_encoder import OpenAiSseEncoder
from proctor.server.schemas import responses
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.responses import (
    AnswerCall,
    AnswerMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    FunctionDelta,
    Logprobs,
    MessageDelta,
)
from proctor.server.transport.sse import PLACEHOLDER, SseTemplate, event


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
        self._texts: dict[MessageKey, list[str]] = {"content": [echo]}
        for key in NULLABLE_KEYS[reasoning_format]:
            self._texts[key] = []
        self._calls: list[AnswerCall] = []
        self.scores: dict[Channel, list[TokenLogprob]] = {channel: [] for channel in Channel}

    def add(self, item: TextDelta | ToolCallDelta) -> None:
        """Add the next item."""
        if isinstance(item, ToolCallDelta):
            self._add_call(item.delta)
            return
        for key in message_keys(item.channel, self._reasoning_format):
            self._texts[key].append(item.text)
        self.scores[item.channel] += item.scores

    def message(self) -> AnswerMessage:
        """Return the message; its content is null if it has tool calls only."""
        content = "".join(self._texts["content"])
        message: AnswerMessage = {"role": "assistant", "content": content}
        for key in NULLABLE_KEYS[self._reasoning_format]:
            message[key] = "".join(self._texts[key]) or None
        if self._calls:
            message["content"] = content or None
            message["tool_calls"] = self._calls
        return message

    def _add_call(self, delta: CallDelta) -> None:
        if delta.id is not None and delta.name is not None:
            call: AnswerCall = {
                "id": delta.id,
                "type": "function",
                "function": {"name": delta.name, "arguments": ""},
            }
            self._calls.append(call)
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
    def reports_usage(self) -> bool:
        return self.request.continuous_usage

    @property
    def reports_progress(self) -> bool:
        """Whether a stream has no thinking, or only once the chains of a vote have ended."""
        is_held_back = self.envelope.admission.parallel is not None
        is_hidden = self.reasoning_format is ReasoningFormat.HIDDEN
        return bool(self.request.stream) and (is_hidden or is_held_back)

    @property
    def with_ids(self) -> bool:
        """Whether the response has token ids."""
        return bool(self.request.return_token_ids)

    @property
    def echo(self) -> str:
        """The beginning of each message, before the generated text."""
        return self.request.messages[-1].unfinished().text if self.request.echo else ""

    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        tools, scored = self.envelope.admission.tools, self._scored_channels()
        return answer_splitter(self.request, tools, engine, job, index, scored=scored)

    def encoder(self) -> "ChatSseEncoder":
        return ChatSseEncoder(self)

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

    def body(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> ChatCompletion:
        builders = [MessageBuilder(self.reasoning_format, self.echo) for _ in results]
        prompt_scores: Sequence[TokenLogprob] | None = None
        for item in items:
            if isinstance(item, PromptLogprobs):
                prompt_scores = item.scores
            else:
                builders[item.choice].add(item)
        envelope = self.envelope
        completion: ChatCompletion = {
            "id": envelope.id,
            "object": "chat.completion",
            "created": envelope.created,
            "model": envelope.model,
            "choices": [
                self._choice(result, builders[result.choice])
                for result in sorted(results, key=lambda result: result.choice)
            ],
            "usage": envelope.usage(results),
            "cost": envelope.cost(),
        }
        if prompt_scores is not None:
            num_top = self.request.prompt_logprobs or 0
            completion["prompt_logprobs"] = prompt_logprobs(
                prompt_scores, num_top, self.token_bytes
            )
        if self.with_ids:
            completion["prompt_token_ids"] = self._prompt_ids
        return completion

    def _choice(self, result: ChoiceResult, builder: MessageBuilder) -> ChatChoice:
        choice: ChatChoice = {
            "index": result.choice,
            "message": builder.message(),
            "logprobs": self._logprobs(builder.scores),
            "finish_reason": self.envelope.finish_reason(result),
            "thinking": self.envelope.thinking(result),
        }
        if self.with_ids:
            choice["token_ids"] = result.token_ids
        return choice

    @property
    def _prompt_ids(self) -> Sequence[int]:
        return self.envelope.admission.jobs[0].prompt_ids

    def role_chunk(self, index: int, used: TokenUsage | None) -> ChatCompletionChunk:
        """Return the first chunk of a choice."""
        chunk = self._chunk(self._choice_delta(index, {"role": "assistant", "content": ""}), used)
        if self.with_ids:
            chunk["prompt_token_ids"] = self._prompt_ids
        return chunk

    def echo_chunk(self, index: int, used: TokenUsage | None) -> ChatCompletionChunk:
        """Return the chunk with the beginning of a choice's message."""
        return self._chunk(self._choice_delta(index, {"content": self.echo}), used)

    def text_template(self, index: int, channel: Channel) -> ChatCompletionChunk:
        """Return a chunk with `PLACEHOLDER` in place of the text."""
        return self._chunk(self._choice_delta(index, self._text(channel, PLACEHOLDER)))

    def text_chunk(self, delta: TextDelta) -> ChatCompletionChunk:
        """Return a chunk of text, with its tokens' scores, its ids and the usage, if requested."""
        choice = self._choice_delta(delta.choice, self._text(delta.channel, delta.text))
        if delta.scores:
            choice["logprobs"] = self._logprobs({delta.channel: delta.scores})
        if self.with_ids:
            choice["token_ids"] = delta.token_ids
        return self._chunk(choice, delta.used)

    def call_chunk(self, call: ToolCallDelta) -> ChatCompletionChunk:
        """Return a chunk of a tool call."""
        delta: MessageDelta = {"tool_calls": [_call_delta(call.delta)]}
        return self._chunk(self._choice_delta(call.choice, delta), call.used)

    def progress_chunk(self, progress: Progress) -> ChatCompletionChunk:
        """Return a chunk with the progress of hidden thinking."""
        choice = self._choice_delta(progress.choice, {"content": ""})
        choice["thinking"] = {
            "tokens": progress.tokens,
            "max_tokens": self.envelope.admission.max_thinking_tokens(progress.choice),
        }
        return self._chunk(choice, progress.used)

    def last_chunk(
        self, result: ChoiceResult, used: TokenUsage | None, ids_sent: int
    ) -> ChatCompletionChunk:
        """Return the last chunk of a choice.

        Its content is an empty string, as DeepSeek's example code concatenates it
        unconditionally.

        Args:
            result: the result of the choice.
            used: the usage of the choice, if requested.
            ids_sent: number of its token ids in earlier chunks.
        """
        choice = self._choice_delta(result.choice, {"content": ""})
        choice["finish_reason"] = self.envelope.finish_reason(result)
        choice["thinking"] = self.envelope.thinking(result)
        if self.with_ids:
            choice["token_ids"] = result.token_ids[ids_sent:]
        return self._chunk(choice, used)

    def usage_chunk(self, results: Sequence[ChoiceResult]) -> ChatCompletionChunk:
        """Return the chunk after all choices, with the usage of the request."""
        chunk = self._empty_chunk()
        chunk["usage"] = self.envelope.usage(results)
        chunk["cost"] = self.envelope.cost()
        return chunk

    def _text(self, channel: Channel, text: str) -> MessageDelta:
        delta: MessageDelta = {}
        for key in message_keys(channel, self.reasoning_format):
            delta[key] = text
        return delta

    def _choice_delta(self, index: int, delta: MessageDelta) -> ChunkChoice:
        whole: MessageDelta = {}
        for key in NULLABLE_KEYS[self.reasoning_format]:
            whole[key] = None
        whole.update(delta)
        return {"index": index, "delta": whole, "finish_reason": None}

    def _chunk(self, choice: ChunkChoice, used: TokenUsage | None = None) -> ChatCompletionChunk:
        chunk = self._empty_chunk()
        chunk["choices"] = [choice]
        if used is not None:
            chunk["usage"] = self.envelope.choice_usage(choice["index"], used)
        return chunk

    def _empty_chunk(self) -> ChatCompletionChunk:
        envelope = self.envelope
        return {
            "id": envelope.id,
            "object": "chat.completion.chunk",
            "created": envelope.created,
            "model": envelope.model,
            "choices": [],
        }

    def _logprobs(self, scores: Mapping[Channel, Sequence[TokenLogprob]]) -> Logprobs | None:
        logprobs: Logprobs = {}
        if answer := scores.get(Channel.ANSWER):
            logprobs["content"] = [token_score(score, self.token_bytes) for score in answer]
        if thinking := scores.get(Channel.REASONING):
            logprobs["reasoning_content"] = [
                token_score(score, self.token_bytes) for score in thinking
            ]
        return logprobs or None


class ChatSseEncoder(OpenAiSseEncoder):
    """Encodes the response to a chat request as server-sent events."""

    def __init__(self, renderer: ChatRenderer) -> None:
        self._renderer = renderer
        self._templates: dict[tuple[int, Channel], SseTemplate] = {}
        self._ids_sent: Counter[int] = Counter()

    def begin(self, index: int) -> bytes:
        used = TokenUsage(0, 0) if self._renderer.reports_usage else None
        first = event(self._renderer.role_chunk(index, used))
        if not self._renderer.echo:
            return first
        return first + event(self._renderer.echo_chunk(index, used), name=Channel.ANSWER.value)

    def item(self, item: StreamItem) -> bytes:
        match item:
            case TextDelta():
                return self._text(item)
            case ToolCallDelta():
                return event(self._renderer.call_chunk(item), name=item.channel.value)
            case Progress():
                return event(self._renderer.progress_chunk(item))
            case PromptLogprobs():
                return b""

    def _text(self, item: TextDelta) -> bytes:
        if not message_keys(item.channel, self._renderer.reasoning_format):
            return b""
        if item.scores or item.token_ids or item.used is not None:
            self._ids_sent[item.choice] += len(item.token_ids)
            return event(self._renderer.text_chunk(item), name=item.channel.value)
        return self._template(item.choice, item.channel).fill(item.text)

    def finish(self, result: ChoiceResult) -> bytes:
        used = result.used if self._renderer.reports_usage else None
        return event(self._renderer.last_chunk(result, used, self._ids_sent[result.choice]))

    def usage(self, results: Sequence[ChoiceResult]) -> bytes:
        if not self._renderer.request.include_usage:
            return b""
        return event(self._renderer.usage_chunk(results))

    def _template(self, index: int, channel: Channel) -> SseTemplate:
        template = self._templates.get((index, channel))
        if template is None:
            template = SseTemplate(self._renderer.text_template(index, channel), name=channel.value)
            self._templates[index, channel] = template
        return template


def _call_delta(delta: CallDelta) -> responses.CallDelta:
    """Return a delta of a tool call, whose id, type and name are in its first delta only."""
    function: FunctionDelta = {"arguments": delta.arguments}
    call: responses.CallDelta = {"index": delta.index, "function": function}
    if delta.id is not None and delta.name is not None:
        call["id"] = delta.id
        call["type"] = "function"
        function["name"] = delta.name
    return call
