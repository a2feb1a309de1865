"""The marker matcher of a batch of slots: `proctor.budget.matcher.MarkerMatcher`, vectorized."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from proctor.budget.markers import Markers
from proctor.budget.matcher import MarkerMatcher, Step, matcher_of
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.vocabulary import Vocabulary

_STATE_BITS, _CROSSING_BITS = 12, 2
_SPAN_SHIFT = _STATE_BITS + _CROSSING_BITS


class BatchStep(NamedTuple):
    """The transitions on one token per slot; every array is [slots] int64.

    Attributes:
        state: the matcher's state after the token.
        crossing: the marker that the token completes, a `Crossing`.
        span: see `Step.span`.
    """

    state: Array
    crossing: Array
    span: Array


class BatchMarkerMatcher:
    """The transitions of a model's matcher as an array, indexed by state and token.

    Attributes:
        matcher: the reference implementation.
        reach: the maximum number of symbols, and so of tokens, in a partial marker.
    """

    def __init__(self, markers: Markers, vocabulary: Vocabulary, arrays: ArrayBackend) -> None:
        """Build the array of transitions, [states, columns] int32, flattened.

        Raises:
            ValueError: if the markers have too many symbols for the packed format.
        """
        self.matcher = matcher = matcher_of(markers, vocabulary)
        if matcher.states > 1 << _STATE_BITS:
            raise ValueError("the thinking markers have too many symbols")
        tokens = {*range(len(vocabulary.traits[0])), *markers.start, *markers.end}
        # The last column represents all tokens that occur in no marker.
        self._columns = max(tokens, default=0) + 2
        self._take, self._xp = arrays.take, arrays.xp
        self._steps = arrays.to_device(_steps(matcher, self._columns).flatten())
        widths = [len(text) or 1 for text in vocabulary.spelling]
        self._widths = arrays.as_int64([*widths, *[1] * (self._columns - len(widths))])
        self.reach = max(matcher.depth)

    def step(self, state: Array, token: Array) -> BatchStep:
        """Return the transitions on one token per slot.

        Args:
            state: [slots] int64.
            token: [slots] int64; an invalid id is treated like a token of no marker.
        """
        packed = self._xp.astype(
            self._take(self._steps, state * self._columns + self._column(token)), self._xp.int64
        )
        return BatchStep(
            packed & ((1 << _STATE_BITS) - 1),
            (packed >> _STATE_BITS) & ((1 << _CROSSING_BITS) - 1),
            packed >> _SPAN_SHIFT,
        )

    def width(self, token: Array) -> Array:
        """Return the number of symbols of each token, [slots] int64, as [slots] int64."""
        return self._take(self._widths, self._column(token))

    def _column(self, token: Array) -> Array:
        last = self._columns - 1
        return self._xp.where((token >= 0) & (token < last), token, last)

    def overlap(self, widths: Array, newest: Array, span: Array) -> Array:
        """Return how many of the last tokens the last `span` symbols cover, [slots] int64.

        Args:
            widths: [slots, reach] int64; symbols of the tokens before the newest, newest first.
            newest: [slots] int64; symbols of the newest token.
            span: [slots] int64.
        """
        before = self._xp.cumulative_sum(widths, axis=1) - widths + newest[:, None]
        others = self._xp.count_nonzero(before < span[:, None], axis=1)
        return self._xp.where(span > 0, 1 + others, 0)


def closing_tokens(matcher: MarkerMatcher, eos: Collection[int]) -> np.ndarray:
    """Return the tokens that close a block or end the turn, [states, n] int64, padded with -1."""
    inside = range(matcher.inside, matcher.inert)
    rows = [
        sorted({*eos, *(matcher.closing_tokens(state) if state in inside else ())})
        for state in range(matcher.states)
    ]
    width = max(1, *map(len, rows))
    return np.array([row + [-1] * (width - len(row)) for row in rows], dtype=np.int64)


def closing_table(tokens: np.ndarray, columns: int) -> np.ndarray:
    """Return the same as flags, [states, columns] bool; `tokens` is that of `closing_tokens`."""
    closes = np.zeros((len(tokens), columns), dtype=bool)
    states, at = np.nonzero(tokens >= 0)
    closes[states, tokens[states, at]] = True
    return closes


def barred_table(matcher: MarkerMatcher) -> np.ndarray:
    """Return, [states, n] int64, the barred tokens by state, padded with the state's first one.

    The row of a state without barred tokens is zero; see `has_barred`.
    """
    rows = [sorted(matcher.barred(state)) for state in range(matcher.states)]
    width = max(1, *map(len, rows))
    return np.array([(row + row[:1] * width)[:width] if row else [0] * width for row in rows])


def has_barred(matcher: MarkerMatcher) -> np.ndarray:
    """Return, [states] bool, whether any tokens are barred in each state."""
    return np.array([bool(matcher.barred(state)) for state in range(matcher.states)])


def _steps(matcher: MarkerMatcher, columns: int) -> np.ndarray:
    """Return the packed transitions, [states, columns] int32."""
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
