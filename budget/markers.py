"""The token sequences that open and close a model's thinking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Markers:
    """How a model marks its thinking, in token ids.

    Attributes:
        start: the sequence that opens a block, one token or more.
        end: the sequence that closes it, one token or more.
        eos: tokens that end the whole turn. Inside a block they count as an
            attempt to close it, as in s1's reference loop, which stops at both.
        start_symbols: what to look for as a start marker, in symbols (see
            `Vocabulary.symbols`); empty is what the tokens of `start` are.
        end_symbols: the same for the end marker.

    Raises:
        ValueError: if a marker is empty, begins as it ends, or shares a token
            with `eos`.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    eos: frozenset[int]
    start_symbols: tuple[int, ...] = ()
    end_symbols: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.start or not self.end:
            raise ValueError("a start marker and an end marker need at least one token each")
        if any(matched_prefix(marker[1:], marker) for marker in (self.start, self.end)):
            raise ValueError("a thinking marker must not begin as it ends")
        if self.eos & {*self.start, *self.end}:
            raise ValueError("an end-of-sequence token cannot be part of a thinking marker")

    def to_wire(self) -> dict[str, list[int]]:
        """Plain JSON, to travel in the engine's configuration."""
        return {
            "start": list(self.start),
            "end": list(self.end),
            "eos": sorted(self.eos),
            "start_symbols": list(self.start_symbols),
            "end_symbols": list(self.end_symbols),
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Markers":
        """The inverse of `to_wire`."""
        return cls(
            tuple(wire["start"]),
            tuple(wire["end"]),
            frozenset(wire["eos"]),
            tuple(wire["start_symbols"]),
            tuple(wire["end_symbols"]),
        )


def matched_prefix(tail: Sequence[int], marker: Sequence[int]) -> int:
    """Length of the longest suffix of `tail` that is a prefix of `marker`."""
    for length in range(min(len(tail), len(marker)), 0, -1):
        if tuple(tail[-length:]) == tuple(marker[:length]):
            return length
    return 0
