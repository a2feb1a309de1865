"""Responses in OpenAI's shape: whole, and chunk by chunk."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.channels import Call, Channel, Piece, Used
from server.engines.answers import CallDelta
from server.engines.base import Score
from server.events import HOLE, Mould, event
from server.presentation import OWN_KEYS, keys
from server.reply import Reply, finish_reason
from server.schemas import ReasoningFormat
from server.turn import End, Progress, Told

LOGPROBS_KEYS = {Channel.ANSWER: "content", Channel.REASONING: "reasoning_content"}
"""Where in `logprobs` a channel's tokens stand."""


class Draft:
    """One choice's message while it is put together.

    Attributes:
        scores: of each channel's tokens.
    """

    def __init__(self, style: ReasoningFormat) -> None:
        self._style = style
        self._texts: dict[str, list[str]] = {"content": []}
        self._texts |= {key: [] for key in OWN_KEYS[style]}
        self._calls: list[dict[str, Any]] = []
        self.scores: dict[Channel, list[Score]] = {channel: [] for channel in Channel}

    def add(self, item: Piece | Call) -> None:
        """Take what comes next."""
        if isinstance(item, Call):
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
class Completion(Reply):
    """The answer to a chat.

    Attributes:
        style: where the thinking stands.
        token_bytes: the text of a token.
    """

    style: ReasoningFormat
    token_bytes: Callable[[int], bytes]

    def whole(self, told: Iterable[Piece | Call], ends: Sequence[End]) -> dict[str, Any]:
        """A response that is not streamed."""
        drafts = [Draft(self.style) for _ in ends]
        for item in told:
            drafts[item.choice].add(item)
        choices = [
            {
                "index": end.choice,
                "message": drafts[end.choice].message(),
                "logprobs": self._logprobs(drafts[end.choice].scores),
                "finish_reason": finish_reason(end, self.admission),
                "thinking": self.thinking(end),
            }
            for end in sorted(ends, key=lambda end: end.choice)
        ]
        return {**self.envelope("chat.completion"), "choices": choices, **self.accounts(ends)}

    def role(self, index: int, used: Used | None) -> dict[str, Any]:
        """A choice's first chunk."""
        return self._chunk(index, {"role": "assistant", "content": ""}, used)

    def text(self, index: int, channel: Channel) -> dict[str, Any]:
        """A chunk of text, with a hole where the text goes."""
        return self._chunk(index, dict.fromkeys(keys(channel, self.style), HOLE))

    def piece(self, piece: Piece) -> dict[str, Any]:
        """A chunk of text, with the scores of its tokens and what has been used where told."""
        delta = dict.fromkeys(keys(piece.channel, self.style), piece.text)
        chunk = self._chunk(piece.choice, delta, piece.used)
        if piece.scores:
            chunk["choices"][0]["logprobs"] = self._logprobs({piece.channel: piece.scores})
        return chunk

    def call(self, call: Call) -> dict[str, Any]:
        """A chunk of a tool call."""
        return self._chunk(call.choice, {"tool_calls": [_call_delta(call.delta)]}, call.used)

    def progress(self, progress: Progress) -> dict[str, Any]:
        """A chunk that tells how far a thinking is that is not shown."""
        chunk = self._chunk(progress.choice, {"content": ""}, progress.used)
        chunk["choices"][0]["thinking"] = {
            "tokens": progress.tokens,
            "max_tokens": self.admission.max_thinking_tokens,
        }
        return chunk

    def finish(self, end: End, used: Used | None) -> dict[str, Any]:
        """A choice's last chunk. Its content is empty: DeepSeek's own loop adds it up unasked."""
        chunk = self._chunk(end.choice, {"content": ""}, used)
        chunk["choices"][0] |= {
            "finish_reason": finish_reason(end, self.admission),
            "thinking": self.thinking(end),
        }
        return chunk

    def usage(self, ends: Sequence[End]) -> dict[str, Any]:
        """The chunk after all choices, with what they used."""
        return {**self.envelope("chat.completion.chunk"), "choices": [], **self.accounts(ends)}

    def _chunk(self, index: int, delta: dict[str, Any], used: Used | None = None) -> dict[str, Any]:
        empty = dict.fromkeys(OWN_KEYS[self.style])
        choice = {"index": index, "delta": {**empty, **delta}, "finish_reason": None}
        chunk = {**self.envelope("chat.completion.chunk"), "choices": [choice]}
        return chunk if used is None else chunk | self.so_far(used)

    def _logprobs(self, scores: Mapping[Channel, Sequence[Score]]) -> dict[str, Any] | None:
        told = {
            LOGPROBS_KEYS[channel]: [self._logprob(score) for score in of_channel]
            for channel, of_channel in scores.items()
            if of_channel
        }
        return told or None

    def _logprob(self, score: Score) -> dict[str, Any]:
        top = [self._candidate(token, logprob) for token, logprob in score.top]
        return {**self._candidate(score.token, score.logprob), "top_logprobs": top}

    def _candidate(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.token_bytes(token)
        return {"token": text.decode(errors="replace"), "logprob": logprob, "bytes": [*text]}


class EventWriter:
    """Writes it as server-sent events."""

    def __init__(self, completion: Completion, counted: bool) -> None:
        """Begin a stream.

        Args:
            completion: what is told.
            counted: whether every chunk tells what its choice has used.
        """
        self._completion = completion
        self._counted = counted
        self._moulds: dict[tuple[int, Channel], Mould] = {}

    def begin(self, index: int) -> bytes:
        """See `Writer`."""
        return event(self._completion.role(index, Used(0, 0) if self._counted else None))

    def item(self, item: Told) -> bytes:
        """See `Writer`. The event is named after its channel; there is none if that is hidden."""
        match item:
            case Call():
                return event(self._completion.call(item), name=item.channel.value)
            case Progress():
                return event(self._completion.progress(item))
            case _ if not keys(item.channel, self._completion.style):
                return b""
            case Piece(scores=(), used=None):
                return self._mould(item.choice, item.channel).fill(item.text)
            case _:
                return event(self._completion.piece(item), name=item.channel.value)

    def finish(self, end: End) -> bytes:
        """See `Writer`."""
        return event(self._completion.finish(end, end.used if self._counted else None))

    def usage(self, ends: Sequence[End]) -> bytes:
        """See `Writer`."""
        return event(self._completion.usage(ends))

    def _mould(self, index: int, channel: Channel) -> Mould:
        mould = self._moulds.get((index, channel))
        if mould is None:
            mould = Mould(self._completion.text(index, channel), name=channel.value)
            self._moulds[index, channel] = mould
        return mould


def _call_delta(delta: CallDelta) -> dict[str, Any]:
    """OpenAI's shape: its id, type and name come once."""
    function: dict[str, Any] = {"arguments": delta.arguments}
    if delta.id is None:
        return {"index": delta.index, "function": function}
    function["name"] = delta.name
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
