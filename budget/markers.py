"""The markers that open and close a model's thinking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Markers:
    """A model's thinking markers and end-of-turn tokens.

    Attributes:
        start: the token ids that open a thinking block; at least one.
        end: the token ids that close it; at least one.
        eos: token ids that end the turn. Inside a block they count as an attempt
            to close it, as in the reference loop of s1 (arXiv 2501.19393), which
            stops at both.
        start_symbols: the start marker as symbols to match (see
            `Vocabulary.symbols`); if empty, the symbols of the tokens of `start`.
        end_symbols: the same for the end marker.

    Raises:
        ValueError: if a marker is empty, a proper suffix of it is also its
            prefix, or it contains an `eos` token.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    eos: frozenset[int]
    start_symbols: tuple[int, ...] = ()
    end_symbols: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.start or not self.end:
            raise ValueError("the start marker and the end marker must each have a token")
        if any(matched_prefix(marker[1:], marker) for marker in (self.start, self.end)):
            raise ValueError("a thinking marker must not start with one of its own suffixes")
        if self.eos & {*self.start, *self.end}:
            raise ValueError("a thinking marker must not contain an end-of-sequence token")

    def to_wire(self) -> dict[str, list[int]]:
        """Return the markers as JSON-compatible data for the engine's configuration."""
        return {
            "start": list(self.start),
            "end": list(self.end),
            "eos": sorted(self.eos),
            "start_symbols": list(self.start_symbols),
            "end_symbols": list(self.end_symbols),
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Markers":
        """Create markers from the result of `to_wire`."""
        return cls(
            tuple(wire["start"]),
            tuple(wire["end"]),
            frozenset(wire["eos"]),
            tuple(wire["start_symbols"]),
            tuple(wire["end_symbols"]),
        )


def matched_prefix(tail: Sequence[int], marker: Sequence[int]) -> int:
    """Return the length of the longest suffix of `tail` that is a prefix of `marker`."""
    for length in range(min(len(tail), len(marker)), 0, -1):
        if tuple(tail[-length:]) == tuple(marker[:length]):
            return length
    return 0
