"""Samplers to compare with: at random, the longest traces, and uniform over domains."""

from collections.abc import Sequence
from random import Random
from typing import Annotated

from pydantic import Field

from proctor.curation.diversity.draws import draw_index, draw_subset
from proctor.curation.diversity.pool import DomainPool, by_id, require, require_domains
from proctor.curation.options import Context
from proctor.curation.selection import Candidate, Selector, SelectorOptions


class SizeOptions(SelectorOptions):
    """Options of a sampler that only needs to know how many rows it chooses.

    Attributes:
        size: the number of rows.
    """

    size: Annotated[int, Field(ge=1)] = 1000


class RandomOptions(SizeOptions):
    """Choose rows at random, each as likely as another."""

    def build(self, context: Context) -> Selector:
        return RandomRows(self.size)


class LongestOptions(SizeOptions):
    """Choose the rows with the longest traces."""

    def build(self, context: Context) -> Selector:
        return Longest(self.size)


class UniformOptions(SizeOptions):
    """Choose a domain at random, then one of its rows at random, until there are enough."""

    def build(self, context: Context) -> Selector:
        return Uniform(self.size)


class RandomRows:
    """Chooses rows at random."""

    def __init__(self, size: int) -> None:
        self._size = size

    def select(self, candidates: Sequence[Candidate], rng: Random) -> list[str]:
        """Return the chosen rows' ids, ordered."""
        require(candidates, self._size)
        chosen = draw_subset(rng, by_id(candidates), self._size)
        return sorted(candidate.id for candidate in chosen)


class Longest:
    """Chooses the longest traces; of equal lengths, the greater ids."""

    def __init__(self, size: int) -> None:
        self._size = size

    def select(self, candidates: Sequence[Candidate], rng: Random) -> list[str]:
        """Return the chosen rows' ids, ordered."""
        require(candidates, self._size)
        by_length = sorted((candidate.trace_tokens, candidate.id) for candidate in candidates)
        return sorted(each for _, each in by_length[-self._size :])


class Uniform:
    """Chooses rows at random from domains chosen at random, without regard to length."""

    def __init__(self, size: int) -> None:
        self._size = size

    def select(self, candidates: Sequence[Candidate], rng: Random) -> list[str]:
        """Return the chosen rows' ids, ordered."""
        require(candidates, self._size)
        require_domains(candidates)
        pool = DomainPool(candidates)
        chosen: list[str] = []
        while len(chosen) < self._size:
            domain = pool.domains[draw_index(rng, len(pool.domains))]
            chosen.append(pool.take(domain, draw_index(rng, pool.count(domain))).id)
        return sorted(chosen)
