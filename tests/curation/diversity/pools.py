"""Pools of candidates."""

from collections.abc import Sequence

from hypothesis import strategies as st

from proctor.curation.selection import Candidate

SOURCES = ("aime", "gpqa", "math", "math/algebra", "forum")


def candidate(
    number: int,
    domain: str = "algebra",
    length: int = 100,
    source: str = "forum",
    correct: bool | None = None,
) -> Candidate:
    return Candidate(f"q{number:05}", f"question {number}", domain, source, length, correct)


def candidates(
    min_size: int = 1, max_size: int = 60, domains: Sequence[str] = "abcde"
) -> st.SearchStrategy[list[Candidate]]:
    """Draw candidates, many of them with traces of equal length."""
    fields = st.tuples(
        st.sampled_from(domains),
        st.integers(0, 12),
        st.sampled_from(SOURCES),
        st.sampled_from([True, False, None]),
    )
    return st.lists(fields, min_size=min_size, max_size=max_size).map(
        lambda drawn: [candidate(number, *each) for number, each in enumerate(drawn)]
    )
