"""The votes of several chains of thought on their answer."""

from collections.abc import Mapping
from dataclasses import dataclass

from proctor.server.config.budgets import VoteMethod
from proctor.server.generation.base import AnswerVotes

AGREEMENT = 2
"""The votes for an answer that decide with `first_agreement`."""


@dataclass(slots=True)
class Candidate:
    """An answer that chains have given.

    Attributes:
        chains: these chains, in the order in which they have ended.
        weight: the sum of their weights, or the best of their scores.
    """

    chains: list[int]
    weight: float


class Votes:
    """Counts the votes of chains, in the order in which they end.

    Each chain has one vote, of a weight of at most 1. The answer of the largest weight wins; of
    several with the same weight, the one that was given first.
    """

    def __init__(self, method: VoteMethod, chains: int) -> None:
        """Open the vote.

        Args:
            method: how the answer is chosen.
            chains: the number of chains.
        """
        self._method = method
        self._running = chains
        self._ended: list[int] = []
        self._candidates: dict[str, Candidate] = {}

    def add(self, chain: int, answer: str | None, weight: float = 1.0) -> None:
        """Count the vote of a chain that has ended.

        Args:
            chain: the chain.
            answer: its answer in its canonical form; None if it has none.
            weight: the weight of its vote, from 0 to 1.
        """
        self._running -= 1
        self._ended.append(chain)
        if answer is None:
            return
        candidate = self._candidates.setdefault(answer, Candidate([], 0.0))
        candidate.chains.append(chain)
        candidate.weight += weight

    def rank(self, scores: Mapping[int, float]) -> None:
        """Let the chain of the best score win, when all chains have ended.

        Args:
            scores: the scores of all chains that have an answer.
        """
        for candidate in self._candidates.values():
            candidate.chains.sort(key=lambda chain: -scores[chain])
            candidate.weight = scores[candidate.chains[0]]

    @property
    def decided(self) -> bool:
        """Whether the chains that still run cannot change the winning answer."""
        if not self._running:
            return True
        if not self._candidates or self._method is VoteMethod.BEST_BY_KEY:
            return False
        if self._method is VoteMethod.FIRST_AGREEMENT:
            return self._leader.weight >= AGREEMENT
        return self._is_unassailable

    @property
    def winner(self) -> int:
        """The first chain with the winning answer, or the first one that ended if none has any."""
        return self._leader.chains[0] if self._candidates else self._ended[0]

    @property
    def answers(self) -> tuple[AnswerVotes, ...]:
        """The votes for each answer, the largest weight first."""
        votes = [
            AnswerVotes(answer, len(candidate.chains), candidate.weight)
            for answer, candidate in self._candidates.items()
        ]
        return tuple(sorted(votes, key=lambda each: -each.weight))

    @property
    def _leader(self) -> Candidate:
        return max(self._candidates.values(), key=lambda each: each.weight)

    @property
    def _is_unassailable(self) -> bool:
        """Whether no answer would win with the votes of all chains that still run."""
        leader, is_earlier = self._leader, True
        for candidate in self._candidates.values():
            if candidate is leader:
                is_earlier = False
                continue
            most = candidate.weight + self._running
            if most > leader.weight or (most == leader.weight and is_earlier):
                return False
        return self._running <= leader.weight
