"""s1's reference loop without its I/O: what to ask a completions server for, round by round.

A server that knows no budgets is asked to go on with the tokens so far. Where it
stops at an attempt to close the thinking, the attempt is stripped, the
continuation is put in its place, and the server is asked again with the longer
prompt. What is due where, `budget.Machine` says, token by token; what a server
gives beyond it is cut off, so that a budget is kept whatever the server does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proctor.budget import BudgetStateMachine, DesyncError, matcher_of, replay
from proctor.server.engines.base import Finish, Job, ModelInfo
from proctor.server.errors import EngineUnavailable

MAX_ROUNDS = 256
"""Most rounds for one job. Each of them may cost a prefill of everything so far."""


@dataclass(frozen=True, slots=True)
class ResubmitStep:
    """One request to the completions server.

    Attributes:
        prompt_ids: the job's prompt and all its tokens so far.
        position: how many tokens of the job come before this round's.
        max_tokens: most tokens of use; a budget may end the round sooner.
        guarded: whether the server shall stop at an end marker.
        barred: tokens that must not be sampled.
    """

    prompt_ids: tuple[int, ...]
    position: int
    max_tokens: int
    suppresses_close: bool
    barred: frozenset[int]


class ResubmitLoop:
    """One job's way through its rounds.

    Attributes:
        tokens: the job's tokens so far, forced ones included.
        attempts: positions where a continuation replaced an attempt to close.
        finish: why generation ended, or None while it goes on.
    """

    def __init__(self, job: Job, model: ModelInfo) -> None:
        self._job = job
        self._markers = model.markers
        self._vocabulary = model.vocabulary
        self._matcher = matcher_of(model.markers, model.vocabulary)
        self._machine = BudgetStateMachine(job.budget, model.markers, model.vocabulary)
        self._round: ResubmitStep | None = None
        self._count = 0
        self._rejected: set[int] = set()
        self._settled = 0
        self._fixed = 0
        self.tokens: list[int] = []
        self.attempts: set[int] = set()
        self.finish: Finish | None = None

    def plan(self) -> ResubmitStep | None:
        """Put in the tokens that are forced now, and say what to ask for; None is the end.

        Raises:
            EngineUnavailable: after `MAX_ROUNDS` rounds.
        """
        self._force()
        if self.finish is not None:
            return None
        if self._count == MAX_ROUNDS:
            raise EngineUnavailable(
                f"the answer took more than {MAX_ROUNDS} requests to the completions server"
            )
        self._count += 1
        lasting = self._barred_from_here_on()
        self._round = ResubmitStep(
            prompt_ids=(*self._job.prompt_ids, *self.tokens),
            position=len(self.tokens),
            max_tokens=1 if self._rejected - lasting else self._room(),
            suppresses_close=self._machine.suppresses_close,
            barred=lasting | self._rejected,
        )
        return self._round

    def take(self, token_ids: Sequence[int]) -> bool:
        """Take tokens of the round; whether it goes on. What comes after its end is dropped.

        Raises:
            DesyncError: if the server sampled a barred token.
        """
        return all(self._take(token) for token in token_ids)

    def end(self, *, stopped: bool) -> None:
        """The server ended a round that could have gone on.

        Args:
            stopped: whether at an end of turn or an end marker, which it kept
                to itself; else it had no more room.

        Raises:
            EngineUnavailable: if the round brought nothing.
        """
        end_of_turn = min(self._markers.eos)
        if stopped and self._is_allowed(end_of_turn):
            self._take(end_of_turn)
        elif stopped:  # inside a character that the budget wants completed
            self._rejected |= self._machine.closing_tokens
        elif self._round is not None and len(self.tokens) == self._round.position:
            raise EngineUnavailable("the completions server had no room for a single token")

    def settle(self) -> list[int]:
        """Tokens that have become certain since the last call.

        The beginning of an end marker is not: it goes if the marker becomes an attempt.
        """
        open_ended = self._machine.thinking and self.finish is None
        held = self._machine.pending if open_ended else 0
        since, self._settled = self._settled, max(self._settled, len(self.tokens) - held)
        return self.tokens[since : self._settled]

    def _room(self) -> int:
        left = self._job.sampling.max_tokens - len(self.tokens)
        budget, machine = self._job.budget, self._machine
        if not machine.thinking or budget.maximum is None:
            return left
        spent = machine.tokens + machine.pending + len(budget.wrap_up_ids)
        return min(left, max(1, budget.maximum - spent))

    def _barred_from_here_on(self) -> frozenset[int]:
        """What opens a thinking by itself, with nothing left to think."""
        if not self._machine.barred:
            return frozenset()
        return self._matcher.barred(self._matcher.outside)

    def _take(self, token: int) -> bool:
        machine, current = self._machine, self._round
        if current is None:
            raise RuntimeError("no round was planned")
        if not self._is_allowed(token):
            if token in current.barred:
                raise DesyncError(f"the completions server sampled the barred token {token}")
            self._rejected.add(token)
            return False
        if token in machine.closing_tokens:
            ends_turn = token in self._markers.eos
            if machine.suppresses_close:
                self._send_back(strip=0 if ends_turn else machine.pending)
                return False
            if ends_turn:
                self._close()
                return False
        was_thinking = machine.thinking
        self._advance(token)
        stops_here = current.suppresses_close and was_thinking and not machine.thinking
        full = len(self.tokens) == current.position + current.max_tokens
        return not stops_here and not full and machine.forced is None and self.finish is None

    def _is_allowed(self, token: int) -> bool:
        """Whether a budget inside the engine would have let this token be sampled.

        Where it would not, it is barred and the token sampled again, until one is
        allowed: which one it then is follows the law of a mask over all the others.
        """
        machine = self._machine
        incomplete_bytes = self._vocabulary.incomplete_bytes_after(machine.incomplete_bytes, token)
        return token not in machine.barred and incomplete_bytes <= machine.max_incomplete_bytes

    def _send_back(self, strip: int) -> None:
        """Put a continuation in the place of an attempt whose last `strip` tokens are taken."""
        keep = max(self._fixed, len(self.tokens) - strip)
        if keep < len(self.tokens):
            del self.tokens[keep:]
            self._machine = replay(
                self._job.budget, self._markers, self.tokens, self.attempts, self._vocabulary
            )
        self.attempts.add(keep)
        self._advance(self._machine.continuation[0], attempted=True)
        self._fixed = len(self.tokens)

    def _close(self) -> None:
        """Put the end marker in the place of an end of turn, so that an answer follows."""
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
