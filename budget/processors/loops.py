"""The loop detectors of a batch as arrays: `proctor.budget.loops.LoopDetector`, vectorized.

A step is a pure function, so that it can be applied to draft tokens that may be rejected.
"""

from typing import NamedTuple

from proctor.budget.loops import (
    MIN_COPIES,
    MIN_LENGTH,
    MIN_LENGTH_WITHOUT_WORDS,
    PHRASE_PENALTY,
    THRESHOLD,
    WINDOW,
    LoopDetector,
)
from proctor.budget.processors.backend import Array, ArrayBackend

_NO_TOKEN = -1


class LoopState(NamedTuple):
    """The state of each slot's detector.

    Attributes:
        recent: [slots, WINDOW] int32; the last tokens, newest first, padded with -1.
        runs: [slots, WINDOW] int32; at index d - 1, the number of consecutive tokens
            that equal the token d positions back.
        phrase: [slots] int32; the number of tokens in the current phrase.
        score: [slots] int64; the cumulative sum, 0 to `THRESHOLD`.
        wordless: [slots] int64; the number of consecutive tokens without letters.
    """

    recent: Array
    runs: Array
    phrase: Array
    score: Array
    wordless: Array

    @classmethod
    def empty(cls, slots: int, arrays: ArrayBackend) -> "LoopState":
        """Return the state of detectors without tokens."""
        int32 = arrays.xp.int32
        recent = arrays.zeros((slots, WINDOW), int32) + _NO_TOKEN
        runs, phrase = arrays.zeros((slots, WINDOW), int32), arrays.zeros((slots,), int32)
        return cls(recent, runs, phrase, arrays.zeros((slots,)), arrays.zeros((slots,)))

    def load(self, slot: int, detector: LoopDetector, arrays: ArrayBackend) -> None:
        """Set a slot to the state of a reference detector."""
        recent, runs = [_NO_TOKEN] * WINDOW, [0] * WINDOW
        for index, token in enumerate(reversed(detector.tokens[-WINDOW:])):
            recent[index] = token
        for distance, run in detector.runs().items():
            runs[distance - 1] = run
        self.recent[slot] = arrays.as_int64(recent)
        self.runs[slot] = arrays.as_int64(runs)
        self.phrase[slot], self.score[slot] = detector.phrase, detector.score
        self.wordless[slot] = detector.wordless

    def where(self, condition: Array, other: "LoopState", arrays: ArrayBackend) -> "LoopState":
        """Select this state in the slots where `condition`, [slots] bool, holds, else `other`.

        May overwrite this state, so it must not be used again.
        """
        where = arrays.xp.where
        return LoopState(
            arrays.where(condition, self.recent, other.recent),
            arrays.where(condition, self.runs, other.runs),
            *(where(condition, mine, its) for mine, its in zip(self[2:], other[2:], strict=True)),
        )


class LoopDetectors:
    """The loop detectors of a batch."""

    def __init__(self, arrays: ArrayBackend) -> None:
        self._arrays = arrays
        xp = arrays.xp
        period = xp.astype(arrays.as_int64(list(range(1, WINDOW + 1))), xp.int32)
        min_runs = [
            xp.where(MIN_COPIES * period > length, MIN_COPIES * period, length) - period
            for length in (MIN_LENGTH, MIN_LENGTH_WITHOUT_WORDS)
        ]
        # [2, WINDOW] int32: the minimum run by period, with words and without.
        self._min_runs = xp.astype(xp.stack(min_runs), xp.int32)

    def step(
        self, state: LoopState, token: Array, weights: Array, has_token: Array
    ) -> tuple[LoopState, Array]:
        """Take one token per slot; a pure function whose arrays have static shapes.

        Args:
            state: the state before the token.
            token: [slots] int64; token ids.
            weights: [slots] int64; the tokens' weights, by
                `proctor.budget.vocabulary.weights_of` or `UNKNOWN_WEIGHT`.
            has_token: [slots] bool; other slots are left unchanged.

        Returns:
            The state after the token, and, [slots] bool, whether the slot's tokens end
            in a loop; False in slots without a token.
        """
        xp = self._arrays.xp
        newest = xp.astype(token[:, None], xp.int32)
        runs = (state.runs + 1) * (state.recent == newest)
        copies = xp.count_nonzero(runs > state.phrase[:, None], axis=1)
        repeated_gain = xp.where(weights > 1, weights, 1)
        gain = xp.where(copies > 1, repeated_gain, xp.where(copies > 0, 1, -PHRASE_PENALTY))
        score = state.score + gain
        after = LoopState(
            recent=xp.concat((newest, state.recent[:, :-1]), axis=1),
            runs=runs,
            phrase=(state.phrase + 1) * (copies > 0),
            score=xp.where(score < 0, 0, xp.where(score > THRESHOLD, THRESHOLD, score)),
            wordless=(state.wordless + 1) * (weights == 0),
        )
        looping = (after.score == THRESHOLD) | self._is_exact(after)
        return after.where(has_token, state, self._arrays), looping & has_token

    def _is_exact(self, state: LoopState) -> Array:
        """Return, [slots] bool, whether the tokens end in exact copies."""
        xp = self._arrays.xp
        wordless = xp.where(state.wordless >= MIN_LENGTH, 1, 0)
        excess = state.runs - xp.take(self._min_runs, wordless, axis=0)
        return xp.max(excess, axis=1) >= 0
