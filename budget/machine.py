"""The reference: one choice's thinking as a state machine over its tokens.

It says what the engine must do before each token and what each token was. The
vectorised table is held equal to it, and the gateway folds it over the streamed
tokens for its accounting. State is a function of the tokens and of the record
of attempts: which tokens stand where the model tried to close its thinking.
The tokens alone cannot tell a forced "Wait" from one that the model wrote.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from budget.markers import Markers, matched_prefix
from budget.policy import TokenBudget


class Label(IntEnum):
    """What a token is: part of the thinking, of the answer, or of neither."""

    THINKING = 0
    ANSWER = 1
    MARKER = 2


class Forced(StrEnum):
    """Why a token was forced."""

    CONTINUATION = "continuation"
    WRAP_UP = "wrap_up"
    MARKER = "marker"


class EndReason(StrEnum):
    """Why thinking ended."""

    NATURAL = "natural"
    MAX = "max"
    LENGTH = "length"
    STOP = "stop"
    CANCELLED = "cancelled"
    DISABLED = "disabled"


class DesyncError(RuntimeError):
    """A token differs from the one that the budget forces: it was not enforced."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one choice's thinking.

    Attributes:
        tokens: thinking tokens, markers excluded.
        forced: tokens that the server chose, by kind.
        continuations: attempts to close that were turned into continuations.
        end_reason: why the thinking ended.
    """

    tokens: int
    forced: dict[Forced, int]
    continuations: int
    end_reason: EndReason


class Machine:
    """Folds one choice's tokens under one budget.

    Before each token, `forced`, `guarded` and `forbidden` say what must hold
    for it; `advance` then takes the token.
    """

    def __init__(self, budget: TokenBudget, markers: Markers) -> None:
        self._budget = budget
        self._markers = markers
        self.thinking = budget.opened
        self.tokens = 0
        self.pending = 0
        self.continuations = 0
        self.forced_counts = dict.fromkeys(Forced, 0)
        self._held: list[int] = []
        self._script: list[tuple[int, Forced]] = []
        self.length = 0
        self.closing = False
        self._end_reason: EndReason | None = None
        if not self.thinking and budget.demands_thinking:
            self._script = [(token, Forced.MARKER) for token in markers.start]
        self._close_at_cap()

    @property
    def forced(self) -> int | None:
        """The token that must come next, if there is one."""
        return self._script[0][0] if self._script else None

    @property
    def script_length(self) -> int:
        """How many tokens from here on are already determined."""
        return len(self._script)

    @property
    def closers(self) -> Set[int]:
        """Tokens that would close the thinking here: the end marker's last, and ends of turn."""
        if not self.thinking:
            return frozenset()
        if self.pending == len(self._markers.end) - 1:
            return self._markers.eos | {self._markers.end[-1]}
        return self._markers.eos

    @property
    def end_token(self) -> int:
        """The end marker's next token: what an end of turn inside the thinking becomes."""
        return self._markers.end[self.pending]

    @property
    def guarded(self) -> bool:
        """Whether an attempt to close the thinking here becomes a continuation."""
        if not self.thinking or self._script:
            return False
        return self.tokens < self._budget.minimum or self._continuation_is_due

    @property
    def continuation(self) -> tuple[int, ...]:
        """The tokens that the next attempt is replaced by."""
        texts = self._budget.continuation_ids
        return texts[self.continuations % len(texts)]

    @property
    def forbidden(self) -> int | None:
        """A token that must not come next: it would open thinking with nothing left to think."""
        start = self._markers.start
        if self.thinking or self._script or self._budget.maximum is None:
            return None
        spent = self.tokens >= self._budget.maximum
        return start[-1] if spent and self.pending == len(start) - 1 else None

    @property
    def _continuation_is_due(self) -> bool:
        if self.continuations >= self._budget.continuations:
            return False
        if self._budget.maximum is None:
            return True
        needed = len(self.continuation) + len(self._budget.wrap_up_ids)
        return self.tokens + self.pending + needed < self._budget.maximum

    def advance(self, token: int, attempted: bool = False) -> list[tuple[int, Label]]:
        """Take the next token; give the tokens whose label is now certain, in order.

        A token that may be part of a longer marker is held back until it is
        known to be.

        Args:
            token: the token's id.
            attempted: whether it stands in the place of an attempt to close.

        Raises:
            DesyncError: if another token was forced here.
        """
        self._follow_script(token, attempted)
        self.length += 1
        if token in self._markers.eos:
            return [*self.flush(), (token, Label.MARKER)]
        marker = self._markers.end if self.thinking else self._markers.start
        label = Label.THINKING if self.thinking else Label.ANSWER
        self._held.append(token)
        self.pending = matched_prefix(self._held, marker)
        released = self._release(len(self._held) - self.pending, label)
        if self.pending == len(marker):
            released += self._cross_marker()
        self._close_at_cap()
        return released

    def flush(self) -> list[tuple[int, Label]]:
        """Release what is held back, because no token follows."""
        self.pending = 0
        if self.closing and all(kind is Forced.MARKER for _, kind in self._script):
            label = Label.MARKER
        else:
            label = Label.THINKING if self.thinking else Label.ANSWER
        return self._release(len(self._held), label)

    def outcome(self, unfinished: EndReason) -> Outcome:
        """The account of the thinking so far; `unfinished` is the reason if it is still open."""
        if self.thinking:
            reason = unfinished
        else:
            reason = self._end_reason or EndReason.DISABLED
        return Outcome(self.tokens, dict(self.forced_counts), self.continuations, reason)

    def _follow_script(self, token: int, attempted: bool) -> None:
        if attempted:
            if not self.guarded or token != self.continuation[0]:
                raise DesyncError(f"token {token} cannot stand for an attempt to close")
            self._script = [(part, Forced.CONTINUATION) for part in self.continuation]
            self.continuations += 1
        if self._script:
            expected, kind = self._script.pop(0)
            if token != expected:
                raise DesyncError(f"token {token} came where {expected} was forced")
            self.forced_counts[kind] += 1

    def _release(self, count: int, label: Label) -> list[tuple[int, Label]]:
        released = [(token, label) for token in self._held[:count]]
        del self._held[:count]
        if label is Label.THINKING:
            self.tokens += count
        return released

    def _cross_marker(self) -> list[tuple[int, Label]]:
        crossed = self._release(len(self._held), Label.MARKER)
        if self.thinking:
            self._end_reason = self._reason_to_close()
        self.thinking = not self.thinking
        self.pending = 0
        self._script = []
        self.closing = False
        return crossed

    def _reason_to_close(self) -> EndReason:
        if self._budget.maximum == 0:
            return EndReason.DISABLED
        if not self.closing:
            return EndReason.NATURAL
        return EndReason.LENGTH if self._budget.capped_by_room else EndReason.MAX

    def _close_at_cap(self) -> None:
        """Begin to close where the wrap-up just fits, or else where nothing more does."""
        maximum = self._budget.maximum
        if not self.thinking or self.closing or maximum is None:
            return
        spent = self.tokens + self.pending
        wrap_up = self._budget.wrap_up_ids
        if self.pending == 0 and spent + len(wrap_up) == maximum:
            self._script = [(token, Forced.WRAP_UP) for token in wrap_up]
        elif spent >= maximum:
            self._script = []
        else:
            return
        # A half-matched marker that is completed counts for nothing: not under the minimum.
        begin = self.pending if self.tokens >= self._budget.minimum else 0
        self._script += [(token, Forced.MARKER) for token in self._markers.end[begin:]]
        self.closing = True


def replay(
    budget: TokenBudget, markers: Markers, tokens: Iterable[int], attempts: Set[int] = frozenset()
) -> Machine:
    """A machine that has taken `tokens`; `attempts` are the positions of replaced attempts."""
    machine = Machine(budget, markers)
    for position, token in enumerate(tokens):
        machine.advance(token, position in attempts)
    return machine
