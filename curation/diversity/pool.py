"""The candidates of a sampler by domain, in an order that does not depend on the input's."""

from collections import Counter
from collections.abc import Iterable, Sequence

from proctor.curation.errors import CurationError
from proctor.curation.selection import Candidate


def by_id(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates ordered by id."""
    return sorted(candidates, key=lambda candidate: candidate.id)


def require(candidates: Sequence[Candidate], size: int) -> None:
    """Check that there are enough candidates.

    Raises:
        CurationError: if not.
    """
    if len(candidates) < size:
        raise CurationError(
            f"[select] size is {size:,}, but only {len(candidates):,} rows pass all stages"
        )


def require_domains(candidates: Sequence[Candidate]) -> None:
    """Check that candidates have domains; those without one count as one domain.

    Raises:
        CurationError: if none has.
    """
    if not any(candidate.domain for candidate in candidates):
        raise CurationError(
            "[select] needs domains, and no row has one: name a classifier in [domains], or the "
            "field of the data set that holds them"
        )


class DomainPool:
    """The candidates that are left, by domain; within one, the longest trace first.

    Of traces of equal length, the one with the greater id comes first.
    """

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._left: dict[str, list[Candidate]] = {}
        for candidate in sorted(candidates, key=_length, reverse=True):
            self._left.setdefault(candidate.domain, []).append(candidate)
        self._domains = sorted(self._left)

    @property
    def domains(self) -> Sequence[str]:
        """The domains that have candidates left, ordered by name."""
        return self._domains

    def count(self, domain: str) -> int:
        """Return the number of candidates left in a domain."""
        return len(self._left.get(domain, ()))

    def take(self, domain: str, rank: int) -> Candidate:
        """Remove and return the candidate of this rank by length, from 0."""
        left = self._left[domain]
        candidate = left.pop(rank)
        if not left:
            self._domains.remove(domain)
        return candidate


def domain_counts(candidates: Iterable[Candidate]) -> Counter[str]:
    """Return the number of candidates of each domain."""
    return Counter(candidate.domain for candidate in candidates)


def _length(candidate: Candidate) -> tuple[int, str]:
    return candidate.trace_tokens, candidate.id
