"""Responses in OpenAI's shape: whole, and chunk by chunk."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.engines.base import Engine, Job, TokenLogprob
from proctor.server.engines.tool_calls import CallDelta
from proctor.server.generation.answer_text import AnswerText
from proctor.server.generation.base import (
    Channel,
    ChoiceResult,
    OutputItem,
    Progress,
    PromptLogprobs,
    StreamItem,
    TextDelta,
    TokenUsage,
    ToolCallDelta,
)
from proctor.server.generation.channels import ChannelSplitter
from proctor.server.renderers.base import ResponseRenderer
from proctor.server.renderers.logprobs import prompt_logprobs
from proctor.server.renderers.reasoning_format import OWN_KEYS, keys, with_tags
from proctor.server.schemas.generation import ChatRequest
from proctor.server.transport.sse import PLACEHOLDER, SseTemplate, event

LOGPROBS_KEYS = {Channel.ANSWER: "content", Channel.REASONING: "reasoning_content"}
"""Where in `logprobs` a channel's tokens stand."""


class MessageBuilder:
    """One choice's message while it is put together.

    Attributes:
        scores: of each channel's tokens.
    """

    def __init__(self, style: ReasoningFormat, begun: str = "") -> None:
        """Begin a message.

        Args:
            style: where its thinking stands.
            begun: what its content begins with.
        """
        self._style = style
        self._texts: dict[str, list[str]] = {"content": [begun]}
        self._texts |= {key: [] for key in OWN_KEYS[style]}
        self._calls: list[dict[str, Any]] = []
        self.scores: dict[Channel, list[TokenLogprob]] = {channel: [] for channel in Channel}

    def add(self, item: TextDelta | ToolCallDelta) -> None:
        """Take what comes next."""
        if isinstance(item, ToolCallDelta):
            self._add_call(item.delta)
            return
        for key in keys(item.channel, self._style):
            self._texts[key].append(item.text)
        self.scores[item.channel] += item.scores

    def message(self) -> dict[str, Any]:
        """The message, in OpenAI's shape; its content is null where it is calls alone."""
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
    """Renders the answer to a chat.

    Attributes:
        request: the request.
        style: where the thinking stands.
        token_bytes: returns the text of a token.
    """

    request: ChatRequest
    style: ReasoningFormat
    token_bytes: Callable[[int], bytes]

    @property
    def reports_progress(self) -> bool:
        """See `ResponseRenderer`."""
        return self.style is ReasoningFormat.HIDDEN and bool(self.request.stream)

    @property
    def with_ids(self) -> bool:
        """Whether the response carries token ids."""
        return bool(self.request.return_token_ids)

    @property
    def echo(self) -> str:
        """The text that each message begins with, before what is generated."""
        return self.request.messages[-1].unfinished().text if self.request.echo else ""

    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        """See `ResponseRenderer`."""
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

    def encoder(self, counted: bool) -> "ChatSseEncoder":
        """See `ResponseRenderer`."""
        return ChatSseEncoder(self, counted)

    def transform(
        self, events: AsyncGenerator[StreamItem | ChoiceResult, None]
    ) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        """See `ResponseRenderer`."""
        return with_tags(events) if self.style is ReasoningFormat.TAGS else events

    def _scored_channels(self) -> Collection[Channel]:
        """The channels whose logprobs the response carries; never those of a hidden thinking."""
        thinking = self.request.thinking
        if not self.request.logprobs:
            return ()
        if thinking is None or not thinking.logprobs or self.style is ReasoningFormat.HIDDEN:
            return (Channel.ANSWER,)
        return tuple(Channel)

    def whole(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> dict[str, Any]:
        """See `ResponseRenderer`."""
        drafts = [MessageBuilder(self.style, self.echo) for _ in results]
        of_prompt: dict[str, Any] = {}
        for item in items:
            if isinstance(item, PromptLogprobs):
                of_prompt = self._of_prompt(item)
            else:
                drafts[item.choice].add(item)
        choices = [
            {
                "index": end.choice,
                "message": drafts[end.choice].message(),
                "logprobs": self._logprobs(drafts[end.choice].scores),
                "finish_reason": self.envelope.admission.finish_reason(end.finish, end.calls),
                "thinking": self.envelope.thinking(end),
                **self._ids(end.token_ids),
            }
            for end in sorted(results, key=lambda end: end.choice)
        ]
        told_of_prompt = {**of_prompt, **self._prompt_ids()}
        envelope = self.envelope.of_kind("chat.completion")
        return {
            **envelope,
            "choices": choices,
            **told_of_prompt,
            **self.envelope.usage_and_cost(results),
        }

    def _of_prompt(self, item: PromptLogprobs) -> dict[str, Any]:
        most = self.request.prompt_logprobs or 0
        return {"prompt_logprobs": prompt_logprobs(item.scores, most, self.token_bytes)}

    def _prompt_ids(self) -> dict[str, Any]:
        return (
            {"prompt_token_ids": self.envelope.admission.jobs[0].prompt_ids}
            if self.with_ids
            else {}
        )

    def _ids(self, token_ids: Sequence[int]) -> dict[str, Any]:
        return {"token_ids": token_ids} if self.with_ids else {}

    def role(self, index: int, used: TokenUsage | None) -> dict[str, Any]:
        """A choice's first chunk."""
        chunk = self._chunk(index, {"role": "assistant", "content": ""}, used)
        return {**chunk, **self._prompt_ids()}

    def begun(self, index: int, used: TokenUsage | None) -> dict[str, Any]:
        """A chunk of what a choice's message begins with."""
        return self._chunk(index, {"content": self.echo}, used)

    def text(self, index: int, channel: Channel) -> dict[str, Any]:
        """A chunk of text, with a hole where the text goes."""
        return self._chunk(index, dict.fromkeys(keys(channel, self.style), PLACEHOLDER))

    def piece(self, piece: TextDelta) -> dict[str, Any]:
        """A chunk of text, with its tokens' scores or ids, and what has been used, where told."""
        delta = dict.fromkeys(keys(piece.channel, self.style), piece.text)
        chunk = self._chunk(piece.choice, delta, piece.used)
        if piece.scores:
            chunk["choices"][0]["logprobs"] = self._logprobs({piece.channel: piece.scores})
        chunk["choices"][0] |= self._ids(piece.token_ids)
        return chunk

    def call(self, call: ToolCallDelta) -> dict[str, Any]:
        """A chunk of a tool call."""
        return self._chunk(call.choice, {"tool_calls": [_call_delta(call.delta)]}, call.used)

    def progress(self, progress: Progress) -> dict[str, Any]:
        """A chunk that tells how far a thinking is that is not shown."""
        chunk = self._chunk(progress.choice, {"content": ""}, progress.used)
        chunk["choices"][0]["thinking"] = {
            "tokens": progress.tokens,
            "max_tokens": self.envelope.admission.max_thinking_tokens(progress.choice),
        }
        return chunk

    def finish(self, end: ChoiceResult, used: TokenUsage | None, identified: int) -> dict[str, Any]:
        """A choice's last chunk, after the ids of so many of its tokens.

        Its content is empty: DeepSeek's own loop adds it up unasked.
        """
        chunk = self._chunk(end.choice, {"content": ""}, used)
        chunk["choices"][0] |= {
            "finish_reason": self.envelope.admission.finish_reason(end.finish, end.calls),
            "thinking": self.envelope.thinking(end),
            **self._ids(end.token_ids[identified:]),
        }
        return chunk

    def usage(self, ends: Sequence[ChoiceResult]) -> dict[str, Any]:
        """The chunk after all choices, with what they used."""
        return {
            **self.envelope.of_kind("chat.completion.chunk"),
            "choices": [],
            **self.envelope.usage_and_cost(ends),
        }

    def _chunk(
        self, index: int, delta: dict[str, Any], used: TokenUsage | None = None
    ) -> dict[str, Any]:
        empty = dict.fromkeys(OWN_KEYS[self.style])
        choice = {"index": index, "delta": {**empty, **delta}, "finish_reason": None}
        chunk = {**self.envelope.of_kind("chat.completion.chunk"), "choices": [choice]}
        return chunk if used is None else chunk | self.envelope.so_far(index, used)

    def _logprobs(self, scores: Mapping[Channel, Sequence[TokenLogprob]]) -> dict[str, Any] | None:
        told = {
            LOGPROBS_KEYS[channel]: [self._logprob(score) for score in of_channel]
            for channel, of_channel in scores.items()
            if of_channel
        }
        return told or None

    def _logprob(self, score: TokenLogprob) -> dict[str, Any]:
        top = [self._candidate(token, logprob) for token, logprob in score.top]
        return {**self._candidate(score.token, score.logprob), "top_logprobs": top}

    def _candidate(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.token_bytes(token)
        return {"token": text.decode(errors="replace"), "logprob": logprob, "bytes": [*text]}


class ChatSseEncoder:
    """Writes it as server-sent events."""

    def __init__(self, completion: ChatRenderer, counted: bool) -> None:
        """Begin a stream.

        Args:
            completion: what is told.
            counted: whether every chunk tells what its choice has used.
        """
        self._completion = completion
        self._counted = counted
        self._moulds: dict[tuple[int, Channel], SseTemplate] = {}
        self._identified: Counter[int] = Counter()

    def begin(self, index: int) -> bytes:
        """See `Writer`."""
        used = TokenUsage(0, 0) if self._counted else None
        first = event(self._completion.role(index, used))
        if not self._completion.echo:
            return first
        return first + event(self._completion.begun(index, used), name=Channel.ANSWER.value)

    def item(self, item: StreamItem) -> bytes:
        """See `Writer`. The event is named after its channel; there is none if that is hidden."""
        match item:
            case ToolCallDelta():
                return event(self._completion.call(item), name=item.channel.value)
            case Progress():
                return event(self._completion.progress(item))
            case PromptLogprobs():
                return b""
            case _ if not keys(item.channel, self._completion.style):
                return b""
            case TextDelta(scores=(), used=None, token_ids=()):
                return self._mould(item.choice, item.channel).fill(item.text)
            case _:
                self._identified[item.choice] += len(item.token_ids)
                return event(self._completion.piece(item), name=item.channel.value)

    def finish(self, end: ChoiceResult) -> bytes:
        """See `Writer`."""
        used = end.used if self._counted else None
        return event(self._completion.finish(end, used, self._identified[end.choice]))

    def usage(self, ends: Sequence[ChoiceResult]) -> bytes:
        """See `Writer`."""
        return event(self._completion.usage(ends))

    def _mould(self, index: int, channel: Channel) -> SseTemplate:
        mould = self._moulds.get((index, channel))
        if mould is None:
            mould = SseTemplate(self._completion.text(index, channel), name=channel.value)
            self._moulds[index, channel] = mould
        return mould


def _call_delta(delta: CallDelta) -> dict[str, Any]:
    """OpenAI's shape: its id, type and name come once."""
    function: dict[str, Any] = {"arguments": delta.arguments}
    if delta.id is None:
        return {"index": delta.index, "function": function}
    function["name"] = delta.name
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
