"""Requests for the tests of processors, and an assertion that their tokens obey the budget."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from vllm import SamplingParams

from proctor.budget import BudgetStateMachine, Markers, TokenBudget, Vocabulary
from proctor.budget.processors.params import EngineBudget
from tests.budget.strategies import EOS

LENGTH = 60


@dataclass
class Request:
    """A request with its budget and its tokens so far."""

    key: str
    budget: TokenBudget | None
    params: SamplingParams
    tokens: list[int] = field(default_factory=list)

    @classmethod
    def greedy(cls, key: str, budget: TokenBudget | None) -> "Request":
        carried = EngineBudget(key, 7, budget).to_extra_args() if budget else {}
        return cls(key, budget, SamplingParams(temperature=0, extra_args=carried))

    @property
    def over(self) -> bool:
        return self.tokens[-1:] == [EOS] or len(self.tokens) == LENGTH


def assert_obeys(
    request: Request,
    markers: Markers,
    vocabulary: Vocabulary,
    attempts: Collection[int],
    preferred: Sequence[int],
) -> None:
    """Assert that each token was forced, replaced an attempt, or was the model's preference."""
    assert request.budget is not None
    machine = BudgetStateMachine(request.budget, markers, vocabulary)
    for position, token in enumerate(request.tokens):
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
