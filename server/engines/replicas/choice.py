"""One choice on its way through replicas: what has come of it, and what may come from another."""

from dataclasses import dataclass, field, replace
from uuid import uuid4

from proctor.budget import EMPTY_RECORD, EngineRecord, Move
from proctor.server.engines.base import Delta, Finish, Job
from proctor.server.engines.replicas.events import ReplicaDelta

MAX_FRUITLESS = 2
"""How many replicas in a row may be lost without having generated a token."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a choice that one replica generates.

    Attributes:
        job: the choice.
        tokens: what other replicas have generated, which continues the prompt.
        record: what they recorded of it.
        key: identifies the replica's request there.
    """

    job: Job
    tokens: tuple[int, ...] = ()
    record: EngineRecord = EMPTY_RECORD
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt of the replica's request."""
        return (*self.job.prompt_ids, *self.tokens)

    @property
    def max_tokens(self) -> int:
        """The maximum number of tokens to generate."""
        return self.job.sampling.max_tokens - len(self.tokens)


class ReplicatedChoice:
    """Follows a choice, so that another replica can continue it where one was lost.

    The state of a budget is a function of the tokens and of the record, both of which are here at
    every moment: the budget stays exact.

    Attributes:
        record: where attempts to end the thinking were replaced, and the moves of the maximum.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._tokens: list[int] = []
        self._began_at = 0
        self._fruitless = 0
        self.record = EMPTY_RECORD

    def push(self, event: ReplicaDelta) -> Delta:
        """Take what a replica has generated, and return it for the gateway."""
        self._tokens += event.delta.token_ids
        if event.record is not None:
            # A move may be known from the response to it already.
            moves = max(self.record.moves, event.record.moves, key=len)
            self.record = EngineRecord(self.record.attempts | event.record.attempts, moves)
        return event.delta

    def note_move(self, move: Move) -> None:
        """Add a move of the maximum to the record, unless it has come with the tokens."""
        if move not in self.record.moves:
            self.record |= EngineRecord(moves=(move,))

    @property
    def begun(self) -> bool:
        """Whether a token was generated."""
        return bool(self._tokens)

    def may_continue(self) -> bool:
        """Note that its replica was lost, and return whether another one may go on.

        Two replicas in a row that were lost without a token are enough: they may have been lost
        because of this choice.
        """
        self._fruitless = 0 if len(self._tokens) > self._began_at else self._fruitless + 1
        return self._fruitless < MAX_FRUITLESS and (not self.begun or self._is_resumable)

    @property
    def _is_resumable(self) -> bool:
        """Whether another replica would continue the choice by the same law.

        A seed's random numbers, the penalties on tokens of the output, and the state of a grammar
        are lost with the replica.
        """
        sampling = self._job.sampling
        is_greedy = sampling.temperature == 0
        return (
            (sampling.seed is None or is_greedy)
            and not sampling.presence_penalty
            and not sampling.frequency_penalty
            and sampling.constraint is None
        )

    def next_segment(self) -> Segment:
        """Return what the next replica is to generate."""
        # A record may be ahead of the tokens that have come, which are drawn again.
        self.record = self.record.until(len(self._tokens))
        self._began_at = len(self._tokens)
        job = self._job
        if self._tokens:
            # They were reported with the first token.
            job = replace(job, sampling=replace(job.sampling, prompt_logprobs=None))
        return Segment(job, tuple(self._tokens), self.record)


def is_over(delta: Delta) -> bool:
    """Return whether a choice ended by itself, and not because its replica gave it up."""
    return delta.finish is not None and delta.finish is not Finish.ABORT
