"""The matcher of a batch of slots as arrays: `proctor.budget.matcher.MarkerMatcher`, vectorised."""

from typing import NamedTuple

import numpy as np

from proctor.budget.markers import Markers
from proctor.budget.matcher import MarkerMatcher, Step, matcher_of
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.vocabulary import Vocabulary

_STATE_BITS, _CROSSING_BITS = 12, 2
_SPAN_SHIFT = _STATE_BITS + _CROSSING_BITS


class Matched(NamedTuple):
    """What a token per slot led to; each is [slots] int64.

    Attributes:
        state: the matcher's state after it.
        crossing: the marker that it completes, a `Crossing`.
        span: see `Step`.
    """

    state: Array
    crossing: Array
    span: Array


class BatchMarkerMatcher:
    """A model's matcher, by state and token.

    Attributes:
        matcher: the reference.
        reach: how far back tokens can be part of a marker that is not complete.
    """

    def __init__(self, markers: Markers, vocabulary: Vocabulary, arrays: ArrayBackend) -> None:
        """Lay the matcher out as one row of tokens per state.

        Raises:
            ValueError: if the markers have more symbols than there is room for.
        """
        self.matcher = matcher = matcher_of(markers, vocabulary)
        if matcher.states > 1 << _STATE_BITS:
            raise ValueError("the thinking markers are too long")
        known = {*range(len(vocabulary.traits[0])), *markers.start, *markers.end}
        # One more column stands for every token that no marker holds.
        self._columns = max(known, default=0) + 2
        self._take, self._xp = arrays.take, arrays.xp
        self._steps = arrays.move(_steps(matcher, self._columns).flatten())
        widths = [len(text) or 1 for text in vocabulary.spelling]
        self._widths = arrays.bring([*widths, *[1] * (self._columns - len(widths))])
        self.reach = max(matcher.depth)

    def match(self, state: Array, token: Array) -> Matched:
        """Return what a token per slot leads to; for ids that are none, what a plain text does."""
        packed = self._xp.astype(
            self._take(self._steps, state * self._columns + self._column(token)), self._xp.int64
        )
        return Matched(
            packed & ((1 << _STATE_BITS) - 1),
            (packed >> _STATE_BITS) & ((1 << _CROSSING_BITS) - 1),
            packed >> _SPAN_SHIFT,
        )

    def width(self, token: Array) -> Array:
        """[slots] int64: how many symbols each token is."""
        return self._take(self._widths, self._column(token))

    def _column(self, token: Array) -> Array:
        last = self._columns - 1
        return self._xp.where((token >= 0) & (token < last), token, last)

    def overlap(self, widths: Array, newest: Array, span: Array) -> Array:
        """[slots] int64: how many of the last tokens the last `span` symbols take.

        Args:
            widths: [slots, reach] int64; symbols of the tokens before the newest, backwards.
            newest: [slots] int64; symbols of the newest one.
            span: [slots] int64.
        """
        before = self._xp.cumulative_sum(widths, axis=1) - widths + newest[:, None]
        others = self._xp.count_nonzero(before < span[:, None], axis=1)
        return self._xp.where(span > 0, 1 + others, 0)


def completing(matcher: MarkerMatcher, columns: int) -> np.ndarray:
    """[states, columns] bool: which tokens complete the end marker inside a block."""
    found = np.zeros((matcher.states, columns), dtype=bool)
    for state in range(matcher.inside, matcher.inert):
        found[state, sorted(matcher.closing_tokens(state))] = True
    return found


def barred(matcher: MarkerMatcher) -> np.ndarray:
    """[states, most] int64: the tokens that `MarkerMatcher.barred` gives, the first repeated.

    A state with none has a row of zeros; see `has_barred`.
    """
    rows = [sorted(matcher.barred(state)) for state in range(matcher.states)]
    most = max(1, *map(len, rows))
    return np.array([(row + row[:1] * most)[:most] if row else [0] * most for row in rows])


def has_barred(matcher: MarkerMatcher) -> np.ndarray:
    """[states] bool: in which states some tokens are barred."""
    return np.array([bool(matcher.barred(state)) for state in range(matcher.states)])


def _steps(matcher: MarkerMatcher, columns: int) -> np.ndarray:
    """[states, columns] int32: the steps, packed."""
    rows = np.empty((matcher.states, columns), dtype=np.int32)
    for state in range(matcher.states):
        root = matcher.root(state)
        rows[state] = _packed(Step(root)) if state == root else rows[root]
        for token, step in matcher.special_steps(state).items():
            rows[state, token] = _packed(step)
    return rows


def _packed(step: Step) -> int:
    span = min(step.span, (1 << 16) - 1)
    return step.state | step.crossing << _STATE_BITS | span << _SPAN_SHIFT
