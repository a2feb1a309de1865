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
        for back, token in enumerate(reversed(detector.tokens[-REACH:])):
            state.recent[0, back] = token
        for distance, run in detector.runs().items():
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
    # Compared into int32: on a CPU a bool that is then multiplied or counted costs three times it.
    repeats = torch.eq(state.recent, token, out=torch.empty_like(state.recent))
    runs = (state.runs + 1).mul_(repeats)
    longer = torch.gt(runs, state.phrase[:, None], out=torch.empty_like(runs))
    copies = longer.sum(dim=1, dtype=torch.int32)
    gain = torch.where(copies > 1, letters.clamp(min=1), torch.where(copies > 0, 1, -SURPRISE))
    after = LoopState(
        recent=torch.cat((token, state.recent[:, :-1]), dim=1),
        runs=runs,
        phrase=(state.phrase + 1) * (copies > 0),
        score=(state.score + gain).clamp(0, ENOUGH),
        wordless=(state.wordless + 1) * (letters == 0),
    )
    exact = _longest_excess(runs, after.wordless >= COVERED) >= 0
    return after.choose(came, state), ((after.score == ENOUGH) | exact) & came


def _longest_excess(runs: torch.Tensor, wordless: torch.Tensor) -> torch.Tensor:
    """[slots] int32: how much longer a run is, at most, than an exact loop of its period needs."""
    needed = _needed(runs.device).index_select(0, wordless.int())
    return (runs - needed).amax(dim=1)


@cache
def _needed(device: torch.device) -> torch.Tensor:
    """[2, REACH] int32: how long a run must be, by period, with words and without."""
    period = torch.arange(1, REACH + 1, dtype=torch.int32, device=device)
    covered = torch.tensor([[COVERED], [COVERED_WITHOUT_WORDS]], dtype=torch.int32, device=device)
    return torch.maximum(COPIES * period, covered) - period
