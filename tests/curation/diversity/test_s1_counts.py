"""The counts that s1 published, on a synthetic pool of the same shape.

The paper (arXiv 2501.19393, section 2.2) and the notebook (`data/filter.ipynb`) count differently:

| | paper | notebook |
|---|--:|--:|
| questions | 59,029 | 59,029 |
| without API errors or missing features | 54,116 | 54,116 |
| without formatting faults | 51,581 | 51,607 |
| that neither model solves | 24,496 | 24,517 |
| domains | 50 | 51 |
| chosen beforehand | 384 | 393 |
| chosen | 1,000 | 1,000 |
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from proctor.curation.difficulty.questions import Questions
from proctor.curation.difficulty.rule import SOLVED, Judge, Mode
from proctor.curation.difficulty.stage import Difficulty
from proctor.curation.diversity.s1 import (
    AIME,
    GPQA,
    MATH,
    S1_BENCHMARKS,
    S1NotebookOptions,
    S1PaperOptions,
    target_mix,
)
from proctor.curation.options import Context
from proctor.curation.rows import Row
from proctor.curation.selection import Candidate
from proctor.curation.tokens import Words
from proctor.evaluation.scorers import load_scorer

CONTEXT = Context(Path(), Words(), 0)
JUDGES = [Judge("7b", only_without=True), Judge("32b", only_without=True)]
BENCHMARK_DOMAINS = ("number theory", "combinatorics", "physics", "chemistry")


@dataclass(frozen=True)
class Shape:
    """A funnel."""

    well_formed: int
    hard: int
    domains: int
    preselected: int


PAPER = Shape(51_581, 24_496, 50, 384)
NOTEBOOK = Shape(51_607, 24_517, 51, 393)


def pool_of(shape: Shape) -> list[Row]:
    """Return the well-formed questions; those from `hard` on are easy.

    Hard ones are of 51 or 50 domains of very different sizes. Some come from the benchmarks: 200
    of AIME, 120 of GPQA and 400 of MATH, with right answers in all to be chosen beforehand.
    """
    rng = Random(1)
    domains = [*BENCHMARK_DOMAINS, *(f"domain {at:02}" for at in range(shape.domains - 4))]
    weights = [1 / (1 + at) for at in range(shape.domains)]
    rows = []
    for at in range(shape.well_formed):
        source = AIME if at < 200 else GPQA if at < 320 else f"{MATH}/x" if at < 720 else "forum"
        is_benchmark = source in (AIME, GPQA)
        domain = rng.choice(BENCHMARK_DOMAINS) if is_benchmark else rng.choices(domains, weights)[0]
        if 720 <= at < 720 + shape.domains:
            domain = domains[at - 720]  # each domain has a question
        facts = {"right": at < shape.preselected, "length": 5601 + rng.randrange(3000)}
        if source == "forum" or not facts["right"]:
            facts["length"] = rng.randrange(500, 12_000)
        rows.append(Row(f"q{at:05}", f"question {at}?", "", "", str(at), domain, source, facts))
    return rows


def hard_rows(shape: Shape) -> tuple[list[Row], Counter[str]]:
    """Return the rows that the stage keeps, and what it drops: the models solve the easy half."""
    questions = Questions("{question}", load_scorer("exact"))
    rows = pool_of(shape)
    solved: dict[str, dict[tuple[str, Mode], bool]] = {"7b": {}, "32b": {}}
    for at, row in enumerate(rows):
        key = questions.of(row).id, Mode.WITHOUT
        easy = at >= shape.hard
        solved["7b"][key] = easy and at % 3 == 0
        solved["32b"][key] = easy and at % 3 != 0
    stage = Difficulty(JUDGES, questions, solved)
    verdicts = [(row, stage.judge(row)) for row in rows]
    dropped = Counter(verdict.reason for _, verdict in verdicts if verdict is not None)
    return [row for row, verdict in verdicts if verdict is None], dropped


def as_candidates(rows: Sequence[Row]) -> list[Candidate]:
    return [
        Candidate(
            row.id,
            row.question,
            row.domain or "",
            row.source,
            row.metadata["length"],
            row.metadata["right"],
        )
        for row in rows
    ]


@pytest.fixture(scope="module", name="paper")
def paper_pool() -> list[Candidate]:
    rows, dropped = hard_rows(PAPER)
    assert dropped == {SOLVED: PAPER.well_formed - PAPER.hard}
    return as_candidates(rows)


@pytest.fixture(scope="module", name="notebook")
def notebook_pool() -> list[Candidate]:
    rows, dropped = hard_rows(NOTEBOOK)
    assert dropped == {SOLVED: NOTEBOOK.well_formed - NOTEBOOK.hard}
    return as_candidates(rows)


def test_the_counts_of_the_paper(paper: list[Candidate]) -> None:
    assert len(paper) == 24_496
    chosen = set(S1PaperOptions().build(CONTEXT).select(paper, Random(0)))

    rows = [each for each in paper if each.id in chosen]
    beforehand = {each.id for each in paper if each.correct}
    assert (len(rows), len(beforehand)) == (1_000, 384)
    assert beforehand <= chosen
    assert len({each.domain for each in rows}) == 50


def test_the_counts_of_the_notebook(notebook: list[Candidate]) -> None:
    assert len(notebook) == 24_517
    chosen = set(S1NotebookOptions().build(CONTEXT).select(notebook, Random(0)))

    rows = [each for each in notebook if each.id in chosen]
    beforehand = {each.id for each in notebook if each.correct}
    assert (len(rows), len(beforehand)) == (1_000, 393)
    assert beforehand <= chosen
    assert len({each.domain for each in notebook}) == 51
    mix = target_mix(S1_BENCHMARKS, notebook)
    assert set(mix) == set(BENCHMARK_DOMAINS)
    assert sum(mix.values()) in range(297, 301)  # 200, and 100 less what is rounded down
    # Of the 607 others at least 300 are of the mix's domains, and most of the 307 are not.
    others = [each for each in rows if each.id not in beforehand]
    outside = sum(each.domain not in mix for each in others)
    assert len(others) == 607
    assert 307 * 47 / 51 - 40 < outside <= 307


def test_longer_traces_are_chosen(paper: list[Candidate], notebook: list[Candidate]) -> None:
    for pool, options in ((paper, S1PaperOptions()), (notebook, S1NotebookOptions())):
        chosen = set(options.build(CONTEXT).select(pool, Random(0)))
        lengths = [each.trace_tokens for each in pool if each.id in chosen and not each.correct]
        mean = sum(each.trace_tokens for each in pool) / len(pool)
        assert sum(lengths) / len(lengths) > 1.5 * mean


def test_a_draw_of_a_row_chosen_beforehand_is_spent_by_the_notebook_only() -> None:
    """Three rows of one domain; the longest is chosen beforehand and keeps its rank."""
    pool = [
        Candidate(name, name, "a", AIME, length, correct)
        for name, length, correct in (("x", 9, True), ("y", 8, False), ("z", 7, False))
    ]
    share = {}
    for kind in (S1PaperOptions, S1NotebookOptions):
        sampler = kind(size=2).build(CONTEXT)
        chosen = Counter(sampler.select(pool, Random(seed))[1] for seed in range(4000))
        share[kind] = chosen["y"] / 4000
    # Paper: y has rank 0 of 2. Notebook: rank 1 of 3, or, once x is drawn, rank 0 of 2.
    assert abs(share[S1PaperOptions] - 2 / 3) < 0.03
    assert abs(share[S1NotebookOptions] - (2 / 7 + 4 / 7 * 2 / 3)) < 0.03
