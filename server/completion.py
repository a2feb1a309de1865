"""Responses in OpenAI's shape: whole, and chunk by chunk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from server.admission import Admission
from server.channels import Channel, Piece
from server.presentation import keys
from server.prices import Cost
from server.schemas import ReasoningFormat
from server.sections import Prices
from server.turn import End

DONE = b"data: [DONE]\n\n"
HOLE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands where a chunk's text goes."""


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
    """

    id: str
    created: int
    model: str
    admission: Admission
    style: ReasoningFormat
    prices: Prices | None

    def whole(self, pieces: Iterable[Piece], ends: Sequence[End]) -> dict[str, Any]:
        """A response that is not streamed."""
        texts: list[dict[str, list[str]]] = [{"content": []} for _ in ends]
        for piece in pieces:
            for key in keys(piece.channel, self.style):
                texts[piece.choice].setdefault(key, []).append(piece.text)
        choices = [
            {
                "index": end.choice,
                "message": {
                    "role": "assistant",
                    **{key: "".join(parts) for key, parts in texts[end.choice].items()},
                },
                "logprobs": None,
                "finish_reason": end.finish.value,
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

    def finish(self, end: End) -> dict[str, Any]:
        """A choice's last chunk."""
        chunk = self._chunk(end.choice, {})
        chunk["choices"][0] |= {
            "finish_reason": end.finish.value,
            "thinking": self._thinking(end),
        }
        return chunk

    def usage(self, ends: Sequence[End]) -> dict[str, Any]:
        """The chunk after all choices, with what they used."""
        return {**self._envelope("chat.completion.chunk"), "choices": [], **self._usage(ends)}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, str]) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": None}
        return {**self._envelope("chat.completion.chunk"), "choices": [choice]}

    def _thinking(self, end: End) -> dict[str, Any]:
        outcome, tier = end.outcome, self.admission.resolution.tier
        return {
            "tier": None if tier is None else tier.name,
            "min_tokens": self.admission.enforced.minimum,
            "max_tokens": self.admission.max_thinking_tokens,
            "tokens": outcome.tokens,
            "forced_tokens": sum(outcome.forced.values()),
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

    def piece(self, piece: Piece) -> bytes:
        """Some text, as an event named after its channel; nothing if it is hidden."""
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


def event(data: Any, *, name: str | None = None) -> bytes:
    """A server-sent event."""
    named = b"event: " + name.encode() + b"\n" if name else b""
    return named + b"data: " + orjson.dumps(data) + b"\n\n"
