from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.generation.parallel.shared_budget import SharedBudget


def grant_slowly(budget: SharedBudget, open_chains: Sequence[int], cap: int) -> list[int]:
    """Return the maxima after the rest has been granted in rounds of one token for each chain."""
    maxima, rest = [*budget.maxima], budget.rest
    while growing := [chain for chain in open_chains if maxima[chain] < cap]:
        if rest < len(growing):
            break
        for chain in growing:
            maxima[chain] += 1
            rest -= 1
    return maxima


class Chains:
    """Chains that think one token at a time, and may end, answer, or refuse a grant at any time."""

    def __init__(self, total: int, chains: int, cap: int) -> None:
        self.budget = SharedBudget(total, chains, cap)
        self.enforced = [*self.budget.maxima]
        self.used = [0] * chains
        self.thinking = {*range(chains)}
        self.granting = {*range(chains)}
        self.cap = cap

    def think(self, chain: int, tokens: int) -> None:
        if chain in self.thinking:
            self.used[chain] = min(self.used[chain] + tokens, self.enforced[chain])

    def answer(self, chain: int) -> None:
        """Let a chain answer; its maximum is taken back, and it may have used a part of it only."""
        self.thinking.discard(chain)
        if chain in self.granting:
            self.granting.discard(chain)
            self.budget.lower(chain, self.used[chain])
            self.enforced[chain] = self.used[chain]

    def grant(self, refusing: frozenset[int]) -> None:
        before = [*self.budget.maxima]
        expected = grant_slowly(self.budget, sorted(self.granting), self.cap)
        granted = self.budget.grant()
        assert self.budget.maxima == expected
        assert {chain: expected[chain] for chain in granted} == granted
        for chain, maximum in granted.items():
            if chain in refusing:
                self.granting.discard(chain)
                self.thinking.discard(chain)
                self.budget.lower(chain, before[chain])
            else:
                self.enforced[chain] = maximum


@given(st.data())
def test_the_chains_never_use_more_than_the_total(data: st.DataObject) -> None:
    total, count = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 6))
    cap = data.draw(st.integers(total // count, total))
    chains = Chains(total, count, cap)
    for _ in range(data.draw(st.integers(0, 12))):
        chain = data.draw(st.integers(0, count - 1))
        match data.draw(st.sampled_from(["think", "answer", "grant"])):
            case "think":
                chains.think(chain, data.draw(st.integers(1, 20)))
            case "answer":
                chains.answer(chain)
            case _:
                chains.grant(data.draw(st.frozensets(st.integers(0, count - 1))))
        budget = chains.budget
        assert sum(budget.maxima) + budget.rest == total
        assert sum(chains.used) <= sum(chains.enforced) <= total
        assert all(
            used <= most <= cap for used, most in zip(chains.used, budget.maxima, strict=True)
        )


def test_what_chains_leave_goes_to_the_others() -> None:
    budget = SharedBudget(100, 3, 100)
    assert (budget.maxima, budget.rest) == ([33, 33, 33], 1)

    budget.lower(0, 12)
    assert budget.grant() == {1: 44, 2: 44}
    budget.lower(2, 44)
    assert budget.grant() == {}  # a chain that has used all leaves nothing
    budget.lower(2, 40)
    assert budget.grant() == {1: 48}
    assert sum(budget.maxima) == 100


def test_no_chain_gets_more_than_the_cap() -> None:
    budget = SharedBudget(90, 3, 40)
    budget.lower(0, 0)
    assert budget.grant() == {1: 40, 2: 40}
    assert budget.rest == 10


def test_a_chain_never_uses_more_than_its_maximum() -> None:
    budget = SharedBudget(10, 2, 10)
    with pytest.raises(ValueError, match="at most 5"):
        budget.lower(0, 6)
