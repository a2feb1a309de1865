"""What all samplers promise, and what each of them prefers."""

from collections import Counter
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.curation.diversity.baselines import LongestOptions, RandomOptions, UniformOptions
from proctor.curation.diversity.s1 import (
    Benchmark,
    Preselection,
    S1NotebookOptions,
    S1PaperOptions,
    target_mix,
)
from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.selection import Candidate, SelectorOptions
from proctor.curation.tokens import Words
from tests.curation.diversity.pools import SOURCES, candidate, candidates
from tests.curation.diversity.reference import benchmark_mix, sample

CONTEXT = Context(Path(), Words(), 0)

SAMPLERS = (RandomOptions, LongestOptions, UniformOptions, S1PaperOptions, S1NotebookOptions)
BY_DOMAIN = (UniformOptions, S1PaperOptions, S1NotebookOptions)

PRESELECT = [
    Preselection(source="aime"),
    Preselection(source="gpqa"),
    Preselection(source="math", longer_than=7),
]
PRESELECTED: dict[type[SelectorOptions], dict[str, object]] = {
    S1PaperOptions: {"preselect": [Preselection(source="math", longer_than=900)]},
    S1NotebookOptions: {"preselect": [Preselection(source="math", longer_than=900)]},
}
BENCHMARKS = [Benchmark(source="aime"), Benchmark(source="gpqa", weight=0.5)]


def options(kind: type[SelectorOptions], size: int) -> SelectorOptions:
    """Return options under which the notebook's mix never runs out."""
    fields = {"mix": dict.fromkeys("abcde", 1)} if kind is S1NotebookOptions else {}
    return kind.model_validate({"size": size, **fields})


def select(chosen_by: SelectorOptions, pool: list[Candidate], seed: int = 0) -> list[str]:
    return chosen_by.build(CONTEXT).select(pool, Random(seed))


@pytest.mark.parametrize("kind", SAMPLERS)
@given(pool=candidates(), data=st.data(), seed=st.integers(0, 99))
def test_every_sampler_is_exact_and_independent_of_order(
    kind: type[SelectorOptions], pool: list[Candidate], data: st.DataObject, seed: int
) -> None:
    size = data.draw(st.integers(1, len(pool)))
    chosen = select(options(kind, size), pool, seed)

    assert len(chosen) == len(set(chosen)) == size
    assert set(chosen) <= {each.id for each in pool}
    assert chosen == sorted(chosen)
    assert chosen == select(options(kind, size), data.draw(st.permutations(pool)), seed)


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        (RandomOptions, "e7eb9fa7dc65380b"),
        (LongestOptions, "37273182f55cb346"),
        (UniformOptions, "70a19cc538803ab9"),
        (S1PaperOptions, "1321741ba3c6e6d5"),
        (S1NotebookOptions, "266f9beeb56170cc"),
    ],
)
def test_a_seed_chooses_the_same_rows_for_ever(kind: type[SelectorOptions], digest: str) -> None:
    """A change of these digests breaks the promise that a recipe can be reproduced."""
    pool = [
        candidate(number, "abcde"[number % 5], number * 7919 % 997, SOURCES[number * 31 % 5], True)
        for number in range(3000)
    ]
    chosen = select(options(kind, 1000).model_copy(update=PRESELECTED.get(kind, {})), pool, 42)
    assert sha256("\n".join(chosen).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("kind", SAMPLERS)
def test_too_few_rows_are_refused(kind: type[SelectorOptions]) -> None:
    with pytest.raises(CurationError, match="size is 3, but only 2 rows pass"):
        select(options(kind, 3), [candidate(0), candidate(1)])


@pytest.mark.parametrize("kind", BY_DOMAIN)
def test_samplers_by_domain_need_domains(kind: type[SelectorOptions]) -> None:
    pool = [candidate(0, ""), candidate(1, "")]
    with pytest.raises(CurationError, match="needs domains"):
        select(options(kind, 1), pool)
    assert len(select(options(kind, 2), [*pool, candidate(2, "a")])) == 2


@pytest.mark.parametrize("kind", BY_DOMAIN)
def test_domains_have_equal_shares_until_they_are_exhausted(kind: type[SelectorOptions]) -> None:
    sizes = {"a": 3, "b": 2000, "c": 2000, "d": 40}
    pool = [
        candidate(10_000 * at + each, domain, each % 50)
        for at, (domain, size) in enumerate(sizes.items())
        for each in range(size)
    ]
    domain_of = {each.id: each.domain for each in pool}
    counts = Counter(domain_of[each] for each in select(options(kind, 1000), pool))

    assert (counts["a"], counts["d"]) == (3, 40)
    rest = 1000 - 3 - 40
    assert all(abs(counts[domain] - rest / 2) < 5 * (rest / 4) ** 0.5 for domain in "bc")


@pytest.mark.parametrize("kind", [S1PaperOptions, S1NotebookOptions])
def test_longer_traces_are_chosen_more_often(kind: type[SelectorOptions]) -> None:
    pool = [candidate(number, length=number) for number in range(12)]
    counts = Counter(
        each
        for seed in range(600)
        for each in select(
            kind.model_validate(
                {"size": 3, "mix": {"algebra": 1}} if kind is S1NotebookOptions else {"size": 3}
            ),
            pool,
            seed,
        )
    )
    by_length = [counts[each.id] for each in reversed(pool)]

    assert by_length[:7] == sorted(by_length[:7], reverse=True)
    assert by_length[0] > 500
    assert sum(by_length[7:]) < by_length[3]


def test_the_longest_are_the_longest() -> None:
    pool = [candidate(number, length=length) for number, length in enumerate([5, 9, 9, 9, 1])]
    assert select(LongestOptions(size=2), pool) == ["q00002", "q00003"]


def test_uniform_sampling_ignores_the_length() -> None:
    pool = [candidate(number, length=number) for number in range(10)]
    counts = Counter(
        each for seed in range(1000) for each in select(UniformOptions(size=2), pool, seed)
    )
    assert all(abs(count - 200) < 5 * 200**0.5 for count in counts.values())


@given(pool=candidates(), data=st.data(), seed=st.integers(0, 10_000))
def test_the_paper_is_the_reference(pool: list[Candidate], data: st.DataObject, seed: int) -> None:
    preselected = _preselected(pool)
    size = data.draw(st.integers(max(1, len(preselected)), len(pool)))
    chosen = select(S1PaperOptions(size=size, preselect=PRESELECT), pool, seed)

    assert set(chosen) == sample(pool, preselected, size, Random(seed), size, {}, False)
    assert preselected <= set(chosen)


@given(pool=candidates(), data=st.data(), seed=st.integers(0, 10_000))
def test_the_notebook_is_the_reference(
    pool: list[Candidate], data: st.DataObject, seed: int
) -> None:
    preselected = _preselected(pool)
    size = data.draw(st.integers(max(1, len(preselected)), len(pool)))
    until = data.draw(st.integers(0, size))
    mix = dict.fromkeys("abcde", 1) | benchmark_mix(pool, "aime", "gpqa")
    chosen_by = S1NotebookOptions(size=size, preselect=PRESELECT, uniform_until=until, mix=mix)

    chosen = select(chosen_by, pool, seed)
    assert set(chosen) == sample(pool, preselected, size, Random(seed), until, mix, True)
    assert preselected <= set(chosen)


@given(candidates())
def test_the_target_mix_is_that_of_the_notebook(pool: list[Candidate]) -> None:
    assert target_mix(BENCHMARKS, pool) == benchmark_mix(pool, "aime", "gpqa")


def test_the_target_mix_rounds_down_and_forgets_rare_domains() -> None:
    aime = [candidate(number, "a", source="aime") for number in range(4)]
    gpqa = [candidate(10 + number, domain, source="gpqa") for number, domain in enumerate("bbbc")]
    assert target_mix(BENCHMARKS, [*aime, *gpqa]) == {"a": 4, "b": 1}


def test_an_exhausted_mix_is_an_error() -> None:
    pool = [candidate(0, "a", source="aime"), candidate(1, "b"), candidate(2, "b")]
    chosen_by = S1NotebookOptions(size=3, uniform_until=0, benchmarks=BENCHMARKS)
    with pytest.raises(CurationError, match="target mix have no rows left after 1:"):
        select(chosen_by, pool)


def test_more_rows_beforehand_than_rows_are_an_error() -> None:
    pool = [candidate(number, source="aime", correct=True) for number in range(3)]
    for kind in (S1PaperOptions, S1NotebookOptions):
        with pytest.raises(CurationError, match="size is 2, but preselect chooses 3"):
            select(kind(size=2, preselect=PRESELECT), pool)


@pytest.mark.parametrize(
    ("source", "length", "correct", "applies"),
    [
        ("math", 8, True, True),
        ("math/algebra", 8, True, True),
        ("mathematics", 8, True, False),
        ("math", 7, True, False),
        ("math", 8, False, False),
        ("math", 8, None, False),
    ],
)
def test_rows_are_chosen_beforehand_if_right_long_and_from_a_source(
    source: str, length: int, correct: bool | None, applies: bool
) -> None:
    assert PRESELECT[2].applies(candidate(0, "a", length, source, correct)) is applies


def test_the_first_benchmark_has_weight_1() -> None:
    with pytest.raises(ValueError, match="first benchmark must be 1"):
        S1NotebookOptions(benchmarks=[Benchmark(source="x", weight=0.5)])


def _preselected(pool: list[Candidate]) -> set[str]:
    return {
        each.id
        for each in pool
        if each.correct
        and (
            each.source in ("aime", "gpqa")
            or (each.source.startswith("math") and each.trace_tokens > 7)
        )
    }
