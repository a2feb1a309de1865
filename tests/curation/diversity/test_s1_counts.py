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
from dataclasses import dataclass, replace
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
from proctor.curation.stages.base import Stage
from proctor.curation.stages.quality import QualityOptions
from proctor.curation.tokens import Words
from proctor.evaluation.scorers import load_scorer

CONTEXT = Context(Path(), Words(), 0)
JUDGES = [Judge("7b", only_without=True), Judge("32b", only_without=True)]
BENCHMARK_DOMAINS = ("number theory", "combinatorics", "physics", "chemistry")


QUESTIONS = 59_029
ANSWERED = 54_116


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
    """Return all questions: the well-formed ones, then those with figures and API errors.

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
        trace = f"Let me see. So the answer is {at}."
        texts = f"question {at}?", trace, f"It is {at}.", str(at)
        rows.append(Row(f"q{at:05}", *texts, domain, source, facts))
    for at in range(shape.well_formed, ANSWERED):
        figure = ("[asy] draw((0,0)--(1,1)); [/asy]", "![Image](figure.png)")[at % 2]
        rows.append(
            replace(rows[720 + at % 720], id=f"q{at:05}", question=f"What is this? {figure}")
        )
    for at in range(ANSWERED, QUESTIONS):
        error = "Error code: 429 - rate limit exceeded"
        rows.append(replace(rows[720 + at % 720], id=f"q{at:05}", trace=error, answer=error))
    return rows


def judged(stage: Stage, rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """Return the rows that a stage keeps, and its reasons for dropping the others."""
    verdicts = [(row, stage.judge(row)) for row in rows]
    reasons = Counter(verdict.reason for _, verdict in verdicts if verdict is not None)
    return [row for row, verdict in verdicts if verdict is None], reasons


def difficulty(rows: Sequence[Row], shape: Shape) -> Difficulty:
    """Return the stage, measured so that one of the models solves each of the easy rows."""
    questions = Questions("{question}", load_scorer("exact"))
    solved: dict[str, dict[tuple[str, Mode], bool]] = {"7b": {}, "32b": {}}
    for at, row in enumerate(rows):
        key = questions.of(row).id, Mode.WITHOUT
        easy = at >= shape.hard
        solved["7b"][key] = easy and at % 3 == 0
        solved["32b"][key] = easy and at % 3 != 0
    return Difficulty(JUDGES, questions, solved)


def hard_candidates(shape: Shape) -> list[Candidate]:
    """Run both stages; check their counts."""
    pool = pool_of(shape)
    assert len(pool) == QUESTIONS
    # s1 keeps wrong answers of the model that wrote the traces.
    quality = QualityOptions(right_answers=False).build(CONTEXT)
    well_formed, faults = judged(quality, pool)
    assert faults["API error"] == QUESTIONS - ANSWERED
    assert faults["image or figure"] == ANSWERED - shape.well_formed
    assert len(well_formed) == shape.well_formed
    hard, easy = judged(difficulty(well_formed, shape), well_formed)
    assert easy == {SOLVED: shape.well_formed - shape.hard}
    return as_candidates(hard)


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
    return hard_candidates(PAPER)


@pytest.fixture(scope="module", name="notebook")
def notebook_pool() -> list[Candidate]:
    return hard_candidates(NOTEBOOK)


@pytest.mark.slow
def test_the_counts_of_the_paper(paper: list[Candidate]) -> None:
    assert len(paper) == 24_496
    chosen = set(S1PaperOptions().build(CONTEXT).select(paper, Random(0)))

    rows = [each for each in paper if each.id in chosen]
    beforehand = {each.id for each in paper if each.correct}
    assert (len(rows), len(beforehand)) == (1_000, 384)
    assert beforehand <= chosen
    assert len({each.domain for each in rows}) == 50


@pytest.mark.slow
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


@pytest.mark.slow
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
