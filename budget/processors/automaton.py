"""The markers of a batch of slots, matched token by token as arrays."""

from budget.markers import Markers, matched_prefix
from budget.processors.arrays import Array, Arrays

_NO_MARKER = -2
"""No token: not even the one that says that none came."""


class Automaton:
    """The two markers as Knuth-Morris-Pratt automata, start marker first."""

    def __init__(self, markers: Markers, arrays: Arrays) -> None:
        both = (markers.start, markers.end)
        self._xp, self._take = arrays.xp, arrays.take
        self._width = max(map(len, both))
        tokens, fallback = list[int](), list[int]()
        for marker in both:
            rest = self._width - len(marker)
            tokens += [*marker, *[_NO_MARKER] * rest]
            shorter = [matched_prefix(marker[1:matched], marker) for matched in range(len(marker))]
            fallback += [*shorter, *[0] * rest]
        self._tokens, self._fallback = arrays.bring(tokens), arrays.bring(fallback)
        self._lengths = [len(marker) for marker in both]

    def length(self, thinking: Array) -> Array:
        """[slots] int64: the length of the marker that is looked for."""
        start, end = self._lengths
        return self._xp.where(thinking, end, start)

    def match(self, thinking: Array, pending: Array, token: Array) -> Array:
        """[slots] int64: how much of the next marker the last tokens match now."""
        first = thinking * self._width
        matched = pending
        for _ in range(self._width - 1):
            at = first + matched
            differs = self._take(self._tokens, at) != token
            matched = self._xp.where(differs, self._take(self._fallback, at), matched)
        hits = self._take(self._tokens, first + matched) == token
        return self._xp.where(hits, matched + 1, 0)
