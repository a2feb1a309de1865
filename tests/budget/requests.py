"""Requests for the tests of processors, and an assertion that their tokens obey the budget."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from vllm import SamplingParams

from proctor.budget import (
    EMPTY_RECORD,
    BudgetStateMachine,
    EngineRecord,
    Markers,
    TokenBudget,
    Vocabulary,
)
from proctor.budget.processors.params import EngineBudget
from tests.budget.strategies import EOS

LENGTH = 60


@dataclass
class Request:
    """A request with its budget and its tokens so far.

    Attributes:
        name: what it is called on every engine.
        budget: its budget, or None.
        params: its sampling parameters on the engine that generates it now.
        output: what this engine has generated.
        resumed: what other engines had generated before, which is in its prompt now.
        engines: how many engines have generated it.
        record: what they recorded of it.
    """

    name: str
    budget: TokenBudget | None
    params: SamplingParams
    output: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    engines: int = 1
    record: EngineRecord = EMPTY_RECORD

    @classmethod
    def greedy(cls, name: str, budget: TokenBudget | None) -> "Request":
        request = cls(name, budget, SamplingParams())
        request.params = request._params()
        return request

    @property
    def key(self) -> str:
        """What it is called on the engine that generates it now."""
        return self.name if self.engines == 1 else f"{self.name}/{self.engines}"

    @property
    def tokens(self) -> list[int]:
        return [*self.resumed, *self.output]

    @property
    def over(self) -> bool:
        return self.tokens[-1:] == [EOS] or len(self.tokens) >= LENGTH

    def change_engine(self, record: EngineRecord) -> None:
        """Resume on another engine, which has no record but this."""
        self.resumed, self.output = self.tokens, []
        self.engines += 1
        self.record = record.until(len(self.resumed))
        self.params = self._params()

    def _params(self) -> SamplingParams:
        if self.budget is None:
            return SamplingParams(temperature=0)
        budget = EngineBudget(self.key, 7, self.budget, len(self.resumed), self.record)
        return SamplingParams(temperature=0, extra_args=budget.to_extra_args())


def assert_obeys(
    request: Request,
    markers: Markers,
    vocabulary: Vocabulary,
    record: EngineRecord,
    preferred: Sequence[int],
) -> None:
    """Assert that each token was forced, replaced an attempt, or was the model's preference."""
    assert request.budget is not None
    machine = BudgetStateMachine(request.budget, markers, vocabulary)
    attempts, moves = record.attempts, deque(record.moves)
    for position, token in enumerate(request.tokens):
        while moves and moves[0].position <= position:
            machine.apply_move(moves.popleft())
        preference = preferred[position]
        if machine.forced is not None:
            assert token == machine.forced
        elif position in attempts:
            assert preference in machine.closing_tokens
        elif (
            vocabulary.incomplete_bytes_after(machine.incomplete_bytes, preference)
            > machine.max_incomplete_bytes
        ):
            assert (
                vocabulary.incomplete_bytes_after(machine.incomplete_bytes, token)
                <= machine.max_incomplete_bytes
            )
        elif machine.thinking and not machine.suppresses_close and preference == EOS:
            assert token == machine.end_token
        elif preference in machine.barred:
            assert token not in machine.barred
        elif preference == EOS and machine.bars_eos:
            assert token != preference
        else:
            assert token == preference
            assert not (machine.suppresses_close and preference in machine.closing_tokens)
        machine.advance(token, position in attempts)
        assert machine.maximum is None or machine.tokens <= machine.maximum
