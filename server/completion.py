"""Responses in OpenAI's shape: whole, and chunk by chunk."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from server.admission import Admission
from server.channels import Call, Channel, Piece
from server.engines.answers import CallDelta
from server.engines.base import Finish, Score
from server.presentation import keys
from server.prices import Cost
from server.schemas import ReasoningFormat
from server.sections import Prices
from server.turn import End, Progress

DONE = b"data: [DONE]\n\n"
HOLE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands where a chunk's text goes."""


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
        self._calls: list[dict[str, Any]] = []
        self.scores: dict[Channel, list[Score]] = {channel: [] for channel in Channel}

    def add(self, item: Piece | Call) -> None:
        """Take what comes next."""
        if isinstance(item, Call):
            self._add_call(item.delta)
            return
        for key in keys(item.channel, self._style):
            self._texts.setdefault(key, []).append(item.text)
        self.scores[item.channel] += item.scores

    def message(self) -> dict[str, Any]:
        """The message, in OpenAI's shape; its content is null where it is calls alone."""
        texts: dict[str, Any] = {key: "".join(parts) for key, parts in self._texts.items()}
        message = {"role": "assistant", **texts}
        if self._calls:
            message |= {"content": texts["content"] or None, "tool_calls": self._calls}
        return message

    def _add_call(self, delta: CallDelta) -> None:
        if delta.index == len(self._calls):
            function = {"name": delta.name, "arguments": ""}
            self._calls.append({"id": delta.id, "type": "function", "function": function})
        self._calls[delta.index]["function"]["arguments"] += delta.arguments


@dataclass(frozen=True, slots=True)
class Completion:
    """What is the same in all that is said about one request.

    Attributes:
        id: the completion's id.
        created: unix time, in seconds.
        model: the model's name.
        admission: what was let in.
        style: where the thinking stands.
        prices: None where they are not known.
        token_bytes: the text of a token.
    """

    id: str
    created: int
    model: str
    admission: Admission
    style: ReasoningFormat
    prices: Prices | None
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
                "finish_reason": self._finish_reason(end),
                "thinking": self._thinking(end),
            }
            for end in sorted(ends, key=lambda end: end.choice)
        ]
        return {**self._envelope("chat.completion"), "choices": choices, **self._usage(ends)}

    def role(self, index: int) -> dict[str, Any]:
        """A choice's first chunk."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def text(self, index: int, channel: Channel) -> dict[str, Any]:
        """A chunk of text, with a hole where the text goes."""
        return self._chunk(index, dict.fromkeys(keys(channel, self.style), HOLE))

    def scored(self, piece: Piece) -> dict[str, Any]:
        """A chunk of text with the scores of its tokens."""
        delta = dict.fromkeys(keys(piece.channel, self.style), piece.text)
        chunk = self._chunk(piece.choice, delta)
        chunk["choices"][0]["logprobs"] = self._logprobs({piece.channel: piece.scores})
        return chunk

    def call(self, call: Call) -> dict[str, Any]:
        """A chunk of a tool call."""
        return self._chunk(call.choice, {"tool_calls": [_call_delta(call.delta)]})

    def progress(self, progress: Progress) -> dict[str, Any]:
        """A chunk that tells how far a thinking is that is not shown."""
        chunk = self._chunk(progress.choice, {})
        chunk["choices"][0]["thinking"] = {
            "tokens": progress.tokens,
            "max_tokens": self.admission.max_thinking_tokens,
        }
        return chunk

    def finish(self, end: End) -> dict[str, Any]:
        """A choice's last chunk."""
        chunk = self._chunk(end.choice, {})
        chunk["choices"][0] |= {
            "finish_reason": self._finish_reason(end),
            "thinking": self._thinking(end),
        }
        return chunk

    def usage(self, ends: Sequence[End]) -> dict[str, Any]:
        """The chunk after all choices, with what they used."""
        return {**self._envelope("chat.completion.chunk"), "choices": [], **self._usage(ends)}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": None}
        return {**self._envelope("chat.completion.chunk"), "choices": [choice]}

    def _finish_reason(self, end: End) -> str:
        """As OpenAI has it, where a call that had to be this one ends with `stop`."""
        called = end.calls and end.finish is Finish.STOP and not self.admission.call_named
        return "tool_calls" if called else end.finish.value

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

    def _thinking(self, end: End) -> dict[str, Any]:
        outcome, tier = end.outcome, self.admission.resolution.tier
        return {
            "tier": None if tier is None else tier.name,
            "min_tokens": self.admission.enforced.minimum,
            "max_tokens": self.admission.max_thinking_tokens,
            "tokens": outcome.tokens,
            "forced_tokens": sum(outcome.forced.values()),
            "forced_spans": [span._asdict() for span in end.forced_spans],
            "continuations": outcome.continuations,
            "end_reason": outcome.end_reason.value,
            "clamped": bool(self.admission.clamped_by),
        }

    def _usage(self, ends: Sequence[End]) -> dict[str, Any]:
        prompt = self.admission.prompt_tokens
        completion = sum(end.tokens for end in ends)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {
                "reasoning_tokens": sum(end.outcome.tokens for end in ends)
            },
        }
        return {"usage": usage, "cost": self._cost(ends)}

    def _cost(self, ends: Sequence[End]) -> dict[str, Any] | None:
        if self.prices is None:
            return None
        answer = sum(end.answer_tokens for end in ends)
        thinking = sum(end.tokens for end in ends) - answer
        return Cost.of(self.prices, self.admission.prompt_tokens, thinking, answer).to_json()


class EventWriter:
    """Writes server-sent events; what is constant in a chunk is encoded once."""

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self._moulds: dict[tuple[int, Channel], list[bytes]] = {}

    def item(self, item: Piece | Call | Progress) -> bytes:
        """An event for what there is to tell, named after its channel; nothing if it is hidden."""
        match item:
            case Call():
                return event(self._completion.call(item), name=item.channel.value)
            case Progress():
                return event(self._completion.progress(item))
            case Piece(scores=()):
                return self._text(item)
            case _:
                shown = keys(item.channel, self._completion.style)
                scored = self._completion.scored(item)
                return event(scored, name=item.channel.value) if shown else b""

    def _text(self, piece: Piece) -> bytes:
        mould = self._moulds.get(piece[:2])
        if mould is None:
            mould = self._moulds[piece[:2]] = self._mould(piece.choice, piece.channel)
        return orjson.dumps(piece.text).join(mould)

    def role(self, index: int) -> bytes:
        """A choice's first event."""
        return event(self._completion.role(index))

    def finish(self, end: End) -> bytes:
        """A choice's last event."""
        return event(self._completion.finish(end))

    def usage(self, ends: Sequence[End]) -> bytes:
        """What the request used."""
        return event(self._completion.usage(ends))

    def _mould(self, index: int, channel: Channel) -> list[bytes]:
        """The pieces of an event between which the text goes."""
        if not keys(channel, self._completion.style):
            return []
        whole = event(self._completion.text(index, channel), name=channel.value)
        return whole.split(orjson.dumps(HOLE))


def _call_delta(delta: CallDelta) -> dict[str, Any]:
    """OpenAI's shape: its id, type and name come once."""
    function: dict[str, Any] = {"arguments": delta.arguments}
    if delta.id is None:
        return {"index": delta.index, "function": function}
    function["name"] = delta.name
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}


def event(data: Any, *, name: str | None = None) -> bytes:
    """A server-sent event."""
    named = b"event: " + name.encode() + b"\n" if name else b""
    return named + b"data: " + orjson.dumps(data) + b"\n\n"
