"""The loop detectors of a whole batch as tensors: `budget.loops.LoopDetector`, vectorised.

A step is a pure function, so a state can be kept and folded over drafts that may be rejected.
"""

from functools import cache
from typing import NamedTuple

import torch

from budget.loops import (
    COPIES,
    COVERED,
    COVERED_WITHOUT_WORDS,
    ENOUGH,
    REACH,
    SURPRISE,
    LoopDetector,
)

_NO_TOKEN = -1


class LoopState(NamedTuple):
    """What each slot's detector has taken; all int32.

    Attributes:
        recent: [slots, REACH]; the last tokens, newest first, padded by -1.
        runs: [slots, REACH]; at index d - 1, how many tokens in a row equalled
            the one d back.
        phrase: [slots]; tokens of the phrase that has begun.
        score: [slots]; 0 to `ENOUGH`.
        wordless: [slots]; how many tokens in a row had no letters.
    """

    recent: torch.Tensor
    runs: torch.Tensor
    phrase: torch.Tensor
    score: torch.Tensor
    wordless: torch.Tensor

    @classmethod
    def empty(cls, slots: int, device: torch.device) -> "LoopState":
        """Slots that have taken nothing."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        recent = zeros(slots, REACH) + _NO_TOKEN
        return cls(recent, zeros(slots, REACH), zeros(slots), zeros(slots), zeros(slots))

    @classmethod
    def of(cls, detector: LoopDetector) -> "LoopState":
        """One slot that has taken what `detector` has."""
        state = cls.empty(1, torch.device("cpu"))
        for back, token in enumerate(reversed(detector.recent)):
            state.recent[0, back] = token
        for distance, run in detector.runs.items():
            state.runs[0, distance - 1] = run
        state.phrase[0], state.score[0] = detector.phrase, detector.score
        state.wordless[0] = detector.wordless
        return state

    def choose(self, condition: torch.Tensor, other: "LoopState") -> "LoopState":
        """This state in the slots where `condition` ([slots] bool) holds, `other` elsewhere."""
        # Arithmetic, because `torch.where` costs twice as much on a CPU.
        one = condition.int()
        pairs = zip(self, other, strict=True)
        return LoopState(
            *(
                torch.addcmul(its, mine - its, one[:, None] if mine.ndim == 2 else one)
                for mine, its in pairs
            )
        )


def step(
    state: LoopState, token: torch.Tensor, letters: torch.Tensor, came: torch.Tensor
) -> tuple[LoopState, torch.Tensor]:
    """Take one token per slot; a pure function of static shape.

    Args:
        state: before the token.
        token: [slots]; token ids.
        letters: [slots]; what `budget.vocabulary.letters_of` gives for each, or
            `UNKNOWN_LETTERS`.
        came: [slots] bool; slots where it does not hold stay as they are.

    Returns:
        The state after the token, and [slots] bool: whether the slot's tokens
        so far end in a loop; False where no token came.
    """
    token, letters = token.int()[:, None], letters.int()
    runs = (state.runs + 1) * (state.recent == token)
    copies = _count_positive(runs - state.phrase[:, None])
    gain = torch.where(copies > 1, letters.clamp(min=1), torch.where(copies > 0, 1, -SURPRISE))
    after = LoopState(
        recent=torch.cat((token, state.recent[:, :-1]), dim=1),
        runs=runs,
        phrase=(state.phrase + 1) * (copies > 0),
        score=(state.score + gain).clamp(0, ENOUGH),
        wordless=(state.wordless + 1) * (letters == 0),
    )
    exact = _has_run(runs, COVERED_WITHOUT_WORDS)
    exact |= _has_run(runs, COVERED) & (after.wordless < COVERED)
    return after.choose(came, state), ((after.score == ENOUGH) | exact) & came


# Both avoid comparing whole tables, which costs several times a subtraction on a CPU.


def _count_positive(table: torch.Tensor) -> torch.Tensor:
    return table.clamp(0, 1).sum(dim=1, dtype=torch.int32)


def _has_run(runs: torch.Tensor, covered: int) -> torch.Tensor:
    """[slots] bool: whether the tail is `COPIES` copies and at least `covered` tokens long."""
    return (runs - _needed(covered, runs.device)).amax(dim=1) >= 0


@cache
def _needed(covered: int, device: torch.device) -> torch.Tensor:
    """[REACH] int32: for each period, how long a run must be."""
    period = torch.arange(1, REACH + 1, dtype=torch.int32, device=device)
    return (COPIES * period).clamp(min=covered) - period
