"""Both samplers of s1: as its paper describes it, and as its notebook does it.

`docs/concepts/curation.md` compares them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Self

from pydantic import Field, model_validator

from proctor.curation.diversity.baselines import SizeOptions
from proctor.curation.diversity.draws import draw_index, draw_rank, draw_weighted
from proctor.curation.diversity.pool import (
    DomainPool,
    domain_counts,
    require,
    require_domains,
)
from proctor.curation.errors import CurationError
from proctor.curation.options import Context, Options
from proctor.curation.selection import Candidate, Selector

AIME = "qq8933/AIME_1983_2024"
GPQA = "Idavidrein/gpqa"
MATH = "qfq/openaimath"


class Preselection(Options):
    """Rows that are chosen beforehand: with a right answer, from a source known to be good.

    Attributes:
        source: a row's source is this one, or begins with it and a slash.
        longer_than: the trace has more tokens.
    """

    source: str
    longer_than: Annotated[int, Field(ge=-1)] = -1

    def applies(self, candidate: Candidate) -> bool:
        """Return whether a row is chosen beforehand."""
        return (
            candidate.correct is True
            and _is_from(candidate, self.source)
            and candidate.trace_tokens > self.longer_than
        )


class Benchmark(Options):
    """A source whose questions' domains are a part of the target mix.

    Attributes:
        source: a row's source is this one, or begins with it and a slash.
        weight: its total, in totals of the first benchmark.
    """

    source: str
    weight: Annotated[float, Field(gt=0)] = 1.0


S1_PRESELECTIONS = [
    Preselection(source=GPQA),
    Preselection(source=AIME),
    Preselection(source=MATH, longer_than=5600),
]

S1_BENCHMARKS = [Benchmark(source=AIME), Benchmark(source=GPQA, weight=0.5)]


class S1PaperOptions(SizeOptions):
    """Choose as s1's paper says.

    Attributes:
        preselect: which rows are chosen beforehand.
    """

    preselect: list[Preselection] = S1_PRESELECTIONS

    def build(self, context: Context) -> Selector:
        return S1Paper(self)


class S1NotebookOptions(SizeOptions):
    """Choose as s1's notebook does.

    Attributes:
        preselect: which rows are chosen beforehand.
        uniform_until: how many rows there are, those chosen beforehand included, when domains
            are no longer drawn uniformly, but by the target mix.
        benchmarks: the sources whose domains are the target mix.
        mix: the target mix as a weight of each domain, in place of `benchmarks`.
    """

    preselect: list[Preselection] = S1_PRESELECTIONS
    uniform_until: Annotated[int, Field(ge=0)] = 700
    benchmarks: list[Benchmark] = S1_BENCHMARKS
    mix: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.benchmarks and self.benchmarks[0].weight != 1:
            raise ValueError("the weight of the first benchmark must be 1: others refer to it")
        return self

    def build(self, context: Context) -> Selector:
        return S1Notebook(self)


class S1Paper:
    """Chooses a domain uniformly, then a row by weight 2^-rank of its trace's length.

    Rows that are chosen beforehand leave their domains at once.
    """

    def __init__(self, options: S1PaperOptions) -> None:
        self._options = options

    def select(self, candidates: Sequence[Candidate], rng: Random) -> list[str]:
        """Return the chosen rows' ids, ordered."""
        size = self._options.size
        require(candidates, size)
        require_domains(candidates)
        chosen = _preselected(self._options.preselect, candidates, size)
        pool = DomainPool(each for each in candidates if each.id not in chosen)
        while len(chosen) < size:
            domain = pool.domains[draw_index(rng, len(pool.domains))]
            chosen.add(pool.take(domain, draw_rank(rng, pool.count(domain))).id)
        return sorted(chosen)


class S1Notebook:
    """Chooses as `S1Paper`, but the last rows' domains by a target mix.

    Rows that are chosen beforehand stay in their domains: they keep their ranks, and a draw that
    meets one is spent.
    """

    def __init__(self, options: S1NotebookOptions) -> None:
        self._options = options

    def select(self, candidates: Sequence[Candidate], rng: Random) -> list[str]:
        """Return the chosen rows' ids, ordered."""
        options = self._options
        require(candidates, options.size)
        require_domains(candidates)
        chosen = _preselected(options.preselect, candidates, options.size)
        pool = DomainPool(candidates)
        mix = options.mix or target_mix(options.benchmarks, candidates)
        while len(chosen) < options.size:
            if len(chosen) < options.uniform_until:
                domain = pool.domains[draw_index(rng, len(pool.domains))]
            else:
                domain = _draw_by_mix(rng, mix, pool, len(chosen))
            chosen.add(pool.take(domain, draw_rank(rng, pool.count(domain))).id)
        return sorted(chosen)


def target_mix(
    benchmarks: Sequence[Benchmark], candidates: Sequence[Candidate]
) -> Mapping[str, int]:
    """Return the weight of each domain: how often the benchmarks' questions are of it.

    The first benchmark's questions are counted as they are; those of the others are scaled to a
    total of `weight` times the first's, and each domain is then rounded down.
    """
    counts = [
        domain_counts(each for each in candidates if _is_from(each, benchmark.source))
        for benchmark in benchmarks
    ]
    mix: Counter[str] = Counter()
    for benchmark, count_of in zip(benchmarks, counts, strict=True):
        for domain, count in count_of.items():
            scale = benchmark.weight * counts[0].total() / count_of.total()
            mix[domain] += int(count * scale)
    return +mix


def _preselected(
    preselections: Sequence[Preselection], candidates: Sequence[Candidate], size: int
) -> set[str]:
    """Return the ids of the rows that are chosen beforehand."""
    chosen = {
        candidate.id
        for candidate in candidates
        if any(each.applies(candidate) for each in preselections)
    }
    if len(chosen) > size:
        raise CurationError(
            f"[select] size is {size:,}, but preselect chooses {len(chosen):,} rows beforehand"
        )
    return chosen


def _draw_by_mix(rng: Random, mix: Mapping[str, int], pool: DomainPool, chosen: int) -> str:
    domains = [domain for domain in pool.domains if mix.get(domain)]
    if not domains:
        raise CurationError(
            f"[select] the domains of the target mix have no rows left after {chosen:,}: "
            "lower size, raise uniform_until, or set other benchmarks or another mix"
        )
    return domains[draw_weighted(rng, [mix[domain] for domain in domains])]


def _is_from(candidate: Candidate, source: str) -> bool:
    return candidate.source == source or candidate.source.startswith(f"{source}/")
