"""Requests as the processors' tests see them, and what must hold for each of their tokens."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from vllm import SamplingParams

from proctor.budget import BudgetStateMachine, Markers, TokenBudget, Vocabulary
from proctor.budget.processors.params import EngineBudget
from tests.budget.strategies import EOS

LENGTH = 60


@dataclass
class Request:
    """One request, with the reference machine that its tokens must satisfy."""

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
    seen: Markers,
    vocabulary: Vocabulary,
    attempts: Collection[int],
    wanted: Sequence[int],
) -> None:
    """Every token was forced, was a replaced attempt, or was the one that the model wanted."""
    assert request.budget is not None
    machine = BudgetStateMachine(request.budget, seen, vocabulary)
    for position, token in enumerate(request.tokens):
        wants = wanted[position]
        if machine.forced is not None:
            assert token == machine.forced
        elif position in attempts:
            assert wants in machine.closing_tokens
        elif (
            vocabulary.incomplete_bytes_after(machine.incomplete_bytes, wants)
            > machine.max_incomplete_bytes
        ):
            assert (
                vocabulary.incomplete_bytes_after(machine.incomplete_bytes, token)
                <= machine.max_incomplete_bytes
            )
        elif machine.thinking and not machine.suppresses_close and wants == EOS:
            assert token == machine.end_token
        elif wants in machine.barred:
            assert token not in machine.barred
        elif wants == EOS and machine.bars_eos:
            assert token != wants
        else:
            assert token == wants
            assert not (machine.suppresses_close and wants in machine.closing_tokens)
        machine.advance(token, position in attempts)
