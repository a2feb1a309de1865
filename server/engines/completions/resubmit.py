"""s1's loop of stop and resubmit, without I/O: plans the requests to a completions server.

Each step asks the server, which has no support for budgets, to continue the tokens so far. Where
the model attempts to end its thinking and must not yet, the loop strips the attempt, puts a
continuation in its place, and resubmits the longer prompt. `BudgetStateMachine` decides after each
token what is due. Tokens beyond that are dropped, so that the budget holds whatever the server
returns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proctor.budget import (
    EMPTY_RECORD,
    BudgetStateMachine,
    DesyncError,
    EndReason,
    EngineRecord,
    Move,
    matcher_of,
    replay,
)
from proctor.server.engines.base import Finish, Job, ModelInfo
from proctor.server.errors import EngineUnavailable

MAX_STEPS = 256
"""Maximum number of steps for one job. Each may cost a prefill of all tokens so far."""


@dataclass(frozen=True, slots=True)
class ResubmitStep:
    """One request to the completions server.

    Attributes:
        prompt_ids: the job's prompt and all its tokens so far.
        position: number of the job's tokens before this step.
        max_tokens: maximum number of tokens that are of use; a budget may end the step sooner.
        suppresses_close: whether the server must stop at an end marker.
        barred: tokens that must not be sampled.
    """

    prompt_ids: tuple[int, ...]
    position: int
    max_tokens: int
    suppresses_close: bool
    barred: frozenset[int]


class ResubmitLoop:
    """The loop for one job.

    Call `next_step`, `push` the tokens of its completion until that returns False or the stream
    ends, in which case call `end_step`, and repeat until `next_step` returns None.

    Attributes:
        tokens: the job's tokens so far, forced ones included.
        record: where a continuation replaced an attempt to end the thinking, and the moves of the
            maximum.
        finish: why generation ended, or None while it continues.
    """

    def __init__(self, job: Job, model: ModelInfo) -> None:
        self._job = job
        self._markers = model.markers
        self._vocabulary = model.vocabulary
        self._matcher = matcher_of(model.markers, model.vocabulary)
        self._machine = BudgetStateMachine(job.budget, model.markers, model.vocabulary)
        self._step: ResubmitStep | None = None
        self._steps = 0
        self._rejected: set[int] = set()
        self._popped = 0
        # Whether the maximum has moved since the step began.
        self._moved = False
        self._fixed = 0
        self.tokens: list[int] = []
        self.record = EMPTY_RECORD
        self.finish: Finish | None = None

    def next_step(self) -> ResubmitStep | None:
        """Add the tokens that are forced now and return the next request, or None at the end.

        Raises:
            EngineUnavailable: after `MAX_STEPS` steps.
        """
        self._moved = False
        self._force()
        if self.finish is not None:
            return None
        if self._steps == MAX_STEPS:
            raise EngineUnavailable(
                f"the answer took more than {MAX_STEPS} requests to the completions server"
            )
        self._steps += 1
        always_barred = self._always_barred()
        self._step = ResubmitStep(
            prompt_ids=(*self._job.prompt_ids, *self.tokens),
            position=len(self.tokens),
            max_tokens=1 if self._rejected - always_barred else self._room(),
            suppresses_close=self._machine.suppresses_close,
            barred=always_barred | self._rejected,
        )
        return self._step

    def move_maximum(self, target: int | None, reason: EndReason | None) -> Move | None:
        """Move the maximum, which ends the current step; see `BudgetStateMachine.move_maximum`."""
        move = self._machine.move_maximum(target, reason)
        if move is not None:
            self.record |= EngineRecord(moves=(move,))
            self._moved = True
        return move

    def push(self, token_ids: Sequence[int]) -> bool:
        """Add tokens of the current step and return whether it continues.

        Tokens after the end of the step are dropped.

        Raises:
            DesyncError: if the server sampled a barred token.
        """
        if self._moved:
            return False
        return all(self._push(token) for token in token_ids)

    def end_step(self, *, stopped: bool) -> None:
        """Handle a step that the server ended, although it could have continued.

        Args:
            stopped: True if the server stopped at an end of turn or an end marker that it did not
                return, False if it reached a length limit.

        Raises:
            EngineUnavailable: if the step returned no tokens.
        """
        end_of_turn = min(self._markers.eos)
        if stopped and self._is_allowed(end_of_turn):
            self._push(end_of_turn)
        elif stopped:  # within a character, which the budget requires to be completed
            self._rejected |= self._machine.closing_tokens
        elif self._step is not None and len(self.tokens) == self._step.position:
            raise EngineUnavailable("the completions server had no room for a single token")

    def pop_final_tokens(self) -> list[int]:
        """Return the tokens that have become final since the last call.

        The beginning of an end marker is not final: it is stripped if the attempt is rejected.
        """
        is_open = self._machine.thinking and self.finish is None
        pending = self._machine.pending if is_open else 0
        start, self._popped = self._popped, max(self._popped, len(self.tokens) - pending)
        return self.tokens[start : self._popped]

    def _room(self) -> int:
        left = self._job.sampling.max_tokens - len(self.tokens)
        machine = self._machine
        if not machine.thinking or machine.maximum is None:
            return left
        spent = machine.tokens + machine.pending + len(self._job.budget.wrap_up_ids)
        return min(left, max(1, machine.maximum - spent))

    def _always_barred(self) -> frozenset[int]:
        """Return the tokens that open a thinking block, once none is allowed any more."""
        if not self._machine.barred:
            return frozenset()
        return self._matcher.barred(self._matcher.outside)

    def _push(self, token: int) -> bool:
        machine, current = self._machine, self._step
        if current is None:
            raise RuntimeError("push() was called before next_step()")
        if not self._is_allowed(token):
            if token in current.barred:
                raise DesyncError(f"the completions server sampled the barred token {token}")
            self._rejected.add(token)
            return False
        if token in machine.closing_tokens:
            ends_turn = token in self._markers.eos
            if machine.suppresses_close:
                self._reject_attempt(strip=0 if ends_turn else machine.pending)
                return False
            if ends_turn:
                self._close()
                return False
        was_thinking = machine.thinking
        self._advance(token)
        server_stops = current.suppresses_close and was_thinking and not machine.thinking
        is_full = len(self.tokens) == current.position + current.max_tokens
        return not server_stops and not is_full and machine.forced is None and self.finish is None

    def _is_allowed(self, token: int) -> bool:
        """Return whether a logits mask in the engine would have allowed this token.

        A token that is not allowed is barred, and the position is sampled again until an allowed
        one comes. By rejection sampling, that has the same distribution as a logits mask.
        """
        machine = self._machine
        incomplete_bytes = self._vocabulary.incomplete_bytes_after(machine.incomplete_bytes, token)
        return token not in machine.barred and incomplete_bytes <= machine.max_incomplete_bytes

    def _reject_attempt(self, strip: int) -> None:
        """Replace an attempt to end the thinking, the last `strip` tokens, by a continuation."""
        keep = max(self._fixed, len(self.tokens) - strip)
        if keep < len(self.tokens):
            del self.tokens[keep:]
            self.record = self.record.until(keep)
            self._machine = replay(
                self._job.budget,
                self._markers,
                self.tokens,
                self.record.attempts,
                self._vocabulary,
                self.record.moves,
            )
        self.record |= EngineRecord(frozenset([keep]))
        self._advance(self._machine.continuation[0], attempted=True)
        self._fixed = len(self.tokens)

    def _close(self) -> None:
        """Replace an end of turn by the end marker, so that an answer follows."""
        machine = self._machine
        while machine.thinking and self.finish is None:
            self._advance(machine.end_token if machine.forced is None else machine.forced)

    def _force(self) -> None:
        while self.finish is None and (token := self._machine.forced) is not None:
            self._advance(token)
            self._fixed = len(self.tokens)

    def _advance(self, token: int, *, attempted: bool = False) -> None:
        self._rejected.clear()
        self.tokens.append(token)
        self._machine.advance(token, attempted)
        if token in self._markers.eos:
            self.finish = Finish.STOP
        elif len(self.tokens) == self._job.sampling.max_tokens:
            self.finish = Finish.LENGTH
