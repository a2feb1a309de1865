"""The loop detectors of a whole batch as arrays: `proctor.budget.loops.LoopDetector`, vectorised.

A step is a pure function, so a state can be kept and folded over drafts that may be rejected.
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
    """What each slot's detector has taken; the first three are int32, the others int64.

    Attributes:
        recent: [slots, REACH]; the last tokens, newest first, padded by -1.
        runs: [slots, REACH]; at index d - 1, how many tokens in a row equalled
            the one d back.
        phrase: [slots]; tokens of the phrase that has begun.
        score: [slots]; 0 to `THRESHOLD`.
        wordless: [slots]; how many tokens in a row had no letters.
    """

    recent: Array
    runs: Array
    phrase: Array
    score: Array
    wordless: Array

    @classmethod
    def empty(cls, slots: int, arrays: ArrayBackend) -> "LoopState":
        """Slots that have taken nothing."""
        small = arrays.xp.int32
        recent = arrays.zeros((slots, WINDOW), small) + _NO_TOKEN
        runs, phrase = arrays.zeros((slots, WINDOW), small), arrays.zeros((slots,), small)
        return cls(recent, runs, phrase, arrays.zeros((slots,)), arrays.zeros((slots,)))

    def load(self, slot: int, detector: LoopDetector, arrays: ArrayBackend) -> None:
        """Make a slot one that has taken what `detector` has."""
        recent, runs = [_NO_TOKEN] * WINDOW, [0] * WINDOW
        for back, token in enumerate(reversed(detector.tokens[-WINDOW:])):
            recent[back] = token
        for distance, run in detector.runs().items():
            runs[distance - 1] = run
        self.recent[slot] = arrays.bring(recent)
        self.runs[slot] = arrays.bring(runs)
        self.phrase[slot], self.score[slot] = detector.phrase, detector.score
        self.wordless[slot] = detector.wordless

    def choose(self, condition: Array, other: "LoopState", arrays: ArrayBackend) -> "LoopState":
        """This state in the slots where `condition` ([slots] bool) holds, `other` elsewhere.

        This state is not to be used again.
        """
        where = arrays.xp.where
        return LoopState(
            arrays.choose(condition, self.recent, other.recent),
            arrays.choose(condition, self.runs, other.runs),
            *(where(condition, one, its) for one, its in zip(self[2:], other[2:], strict=True)),
        )


class LoopDetectors:
    """The detectors of a batch, on one device."""

    def __init__(self, arrays: ArrayBackend) -> None:
        self._arrays = arrays
        xp = arrays.xp
        period = xp.astype(arrays.bring(list(range(1, WINDOW + 1))), xp.int32)
        needed = [
            xp.where(MIN_COPIES * period > covered, MIN_COPIES * period, covered) - period
            for covered in (MIN_LENGTH, MIN_LENGTH_WITHOUT_WORDS)
        ]
        # [2, REACH] int32: how long a run must be by period, with words and without.
        self._needed = xp.astype(xp.stack(needed), xp.int32)

    def step(
        self, state: LoopState, token: Array, weights: Array, came: Array
    ) -> tuple[LoopState, Array]:
        """Take one token per slot; a pure function of static shape.

        Args:
            state: before the token.
            token: [slots] int64; token ids.
            weights: [slots] int64; what `proctor.budget.vocabulary.weights_of` gives for
                each, or `UNKNOWN_WEIGHT`.
            came: [slots] bool; slots where it does not hold stay as they are.

        Returns:
            The state after the token, and [slots] bool: whether the slot's tokens
            so far end in a loop; False where no token came.
        """
        xp = self._arrays.xp
        newest = xp.astype(token[:, None], xp.int32)
        runs = (state.runs + 1) * (state.recent == newest)
        copies = xp.count_nonzero(runs > state.phrase[:, None], axis=1)
        said_often = xp.where(weights > 1, weights, 1)
        gain = xp.where(copies > 1, said_often, xp.where(copies > 0, 1, -PHRASE_PENALTY))
        score = state.score + gain
        after = LoopState(
            recent=xp.concat((newest, state.recent[:, :-1]), axis=1),
            runs=runs,
            phrase=(state.phrase + 1) * (copies > 0),
            score=xp.where(score < 0, 0, xp.where(score > THRESHOLD, THRESHOLD, score)),
            wordless=(state.wordless + 1) * (weights == 0),
        )
        looping = (after.score == THRESHOLD) | self._ends_exactly(after)
        return after.choose(came, state, self._arrays), looping & came

    def _ends_exactly(self, state: LoopState) -> Array:
        """[slots] bool: whether the tokens end in copies of something."""
        xp = self._arrays.xp
        wordless = xp.where(state.wordless >= MIN_LENGTH, 1, 0)
        excess = state.runs - xp.take(self._needed, wordless, axis=0)
        return xp.max(excess, axis=1) >= 0
