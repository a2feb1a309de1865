"""Reads the server-sent events of replicas."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from proctor.budget import EngineRecord
from proctor.replica.record_stream import FIELD
from proctor.server.engines.base import Delta, Finish, TokenLogprob
from proctor.server.errors import EngineUnavailable

DATA = b"data:"
DONE = b"[DONE]"
ReadLogprobs = Callable[[Mapping[str, Any], int], list[TokenLogprob]]
FAILED = "error"
"""vLLM's finish reason of a request that failed."""


class ReplicaDelta(NamedTuple):
    """What one replica has generated since the previous delta.

    Attributes:
        delta: the tokens.
        record: what is recorded of the choice, counted from its first token, if the record has
            come with these tokens.
    """

    delta: Delta
    record: EngineRecord | None = None


class RequestFailed(EngineUnavailable):
    """A replica failed a single request."""


class EventReader:
    """Joins the events that have arrived together into one delta.

    The last delta waits for the event with the token usage, which follows at once.
    """

    def __init__(self, top_logprobs: int | None, read_logprobs: ReadLogprobs) -> None:
        """Create a reader for one choice.

        Args:
            top_logprobs: how many of the most likely tokens to report at each position, or None.
            read_logprobs: returns the log probabilities of a choice in an event, with at most so
                many of the most likely tokens.
        """
        self._top_logprobs = top_logprobs
        self._read_logprobs = read_logprobs
        self._rest = b""
        self._finish: Finish | None = None
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether the last delta was returned."""
        return self._ended

    def read(self, data: bytes) -> ReplicaDelta | None:
        """Add bytes of the stream, and return what they complete, if anything.

        Raises:
            RequestFailed: if the replica failed the request.
            ValueError: if the stream is malformed.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        token_ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        record: EngineRecord | None = None
        cached_tokens: int | None = None
        for line in lines:
            if not line.startswith(DATA):
                continue
            payload = line[len(DATA) :].strip()
            if payload == DONE:
                self._ended = True
                continue
            event = orjson.loads(payload)
            if error := event.get("error"):
                raise RequestFailed(f"the replica failed the request: {_message(error)}")
            for choice in event["choices"]:
                token_ids += choice["token_ids"] or ()
                if self._top_logprobs is not None:
                    logprobs += self._read_logprobs(choice, self._top_logprobs)
                self._finish = _finish(choice["finish_reason"]) or self._finish
            if FIELD in event:
                record = EngineRecord.from_wire(event[FIELD])
            if usage := event.get("usage"):
                cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        finish = self._finish if self._ended else None
        if not token_ids and record is None and finish is None and cached_tokens is None:
            return None
        delta = Delta(token_ids, finish, logprobs, cached_tokens)
        return ReplicaDelta(delta, record)


def to_prompt_logprobs(
    positions: Sequence[Mapping[str, Any]], prompt_ids: Sequence[int], count: int
) -> list[TokenLogprob]:
    """Return the log probabilities of a prompt but for its first token, as vLLM writes them.

    Args:
        positions: by token id for each position, the first of which has none.
        prompt_ids: the prompt.
        count: how many of the most likely tokens to return for each position.
    """
    return [
        _prompt_logprob(token, by_id, count)
        for token, by_id in zip(prompt_ids[1:], positions[1:], strict=True)
    ]


def _prompt_logprob(token: int, by_id: Mapping[str, Any], count: int) -> TokenLogprob:
    ranked = sorted(by_id.items(), key=lambda item: item[1]["rank"] or 0)
    top = tuple((int(other), entry["logprob"]) for other, entry in ranked[:count])
    own = by_id[str(token)]
    return TokenLogprob(token, own["logprob"], top, own["rank"] or 0)


def read_logprobs(choice: Mapping[str, Any], count: int) -> list[TokenLogprob]:
    """Return the log probabilities of a choice's tokens in an event of `/inference/v1/generate`."""
    return [
        TokenLogprob(
            entry["token_id"],
            entry["logprob"],
            tuple(
                (top["token_id"], top["logprob"])
                for top in sorted(entry["top_logprobs"], key=lambda top: top["rank"] or 0)[:count]
            ),
            entry["rank"] or 0,
        )
        for entry in choice["logprobs"]["content"]
    ]


def _finish(reason: str | None) -> Finish | None:
    if reason == FAILED:
        raise RequestFailed("the replica failed the request")
    return None if reason is None else Finish(reason)


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, Mapping) else error)
