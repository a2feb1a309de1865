"""The outcome of one choice's thinking: what was forced, and why it ended."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from proctor.budget.budgets import OnLoop


class Forced(StrEnum):
    """The reason why a token was forced."""

    CONTINUATION = "continuation"
    WRAP_UP = "wrap_up"
    MARKER = "marker"


class EndReason(StrEnum):
    """The reason why thinking ended."""

    NATURAL = "natural"
    MAX = "max"
    LOOP = "loop"
    SETTLED = "settled"
    UNSURE = "unsure"
    LENGTH = "length"
    STOP = "stop"
    CANCELLED = "cancelled"
    DISABLED = "disabled"


class ForcedRun(NamedTuple):
    """Consecutive tokens that were forced for one reason.

    A token that replaces an attempt to close starts a new run, as does a nudge.

    Attributes:
        kind: the reason.
        start: the position of the first token in the choice.
        end: the position after the last token.
    """

    kind: Forced
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The statistics of one choice's thinking.

    Attributes:
        tokens: thinking tokens, markers excluded.
        forced_runs: the forced tokens, in order.
        continuations: attempts to close that became continuations.
        end_reason: why the thinking ended.
        loops: the number of loops detected, by action.
        spilled: answer tokens before an end marker that the model wrote in its answer although its
            thinking had been closed for it: it went on thinking there.
    """

    tokens: int
    forced_runs: tuple[ForcedRun, ...]
    continuations: int
    end_reason: EndReason
    loops: dict[OnLoop, int]
    spilled: int = 0

    @property
    def forced(self) -> dict[Forced, int]:
        """The number of forced tokens by kind."""
        counts = dict.fromkeys(Forced, 0)
        for run in self.forced_runs:
            counts[run.kind] += run.end - run.start
        return counts
