"""The pool: questions with traces, and questions that are held out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from bench.curation.kinds import STEPS, TRAINED, UNSEEN
from bench.curation.kinds.base import Kind, Problem
from proctor.curation.rows import Row

SOURCE = "proctor-pool"
CORRECTED = 0.2
"""The share of traces in which a slip is made and corrected."""

NOTICED = (
    "Wait, that is not right.",
    "Wait, let me check that again.",
    "No, that is a mistake.",
    "Hmm, that cannot be.",
)
ENDINGS = ("So the answer is {}.", "The answer is {}.", "That gives the answer: {}.")


@dataclass(frozen=True, slots=True)
class Pool:
    """Clean rows to train on, and held-out questions.

    Attributes:
        problems: what the rows are made of, in the same order.
        rows: the rows.
        seen: held-out questions of the kinds that are trained on.
        unseen: questions of the other kinds.
    """

    problems: list[Problem]
    rows: list[Row]
    seen: list[Problem]
    unseen: list[Problem]


def make_pool(count: int, seed: int, held_out: int = 50) -> Pool:
    """Return a pool of distinct questions.

    Args:
        count: the number of rows.
        seed: what all of it follows from.
        held_out: the number of held-out questions of each kind.
    """
    questions: set[str] = set()
    # First, so that they are the same for every size of the pool.
    seen = [each for kind in TRAINED for each in _draw(kind, TRAINED, held_out, questions, seed)]
    unseen = [each for kind in UNSEEN for each in _draw(kind, UNSEEN, held_out, questions, seed)]
    problems: list[Problem] = []
    for index, kind in enumerate(TRAINED):
        share = (count + index) // len(TRAINED)
        problems += _draw(kind, TRAINED, share, questions, seed + 1)
    rng = Random(seed)
    rng.shuffle(problems)
    rows = [_row(index, problem, rng) for index, problem in enumerate(problems)]
    return Pool(problems, rows, seen, unseen)


def _draw(
    name: str, kinds: Mapping[str, Kind], count: int, questions: set[str], seed: int
) -> Iterator[Problem]:
    """Yield problems of a kind, of all difficulties in turn, whose questions are new."""
    rng = Random(f"{seed} {name}")
    drawn = 0
    while drawn < count:
        problem = kinds[name](rng, 1 + drawn % STEPS[name])
        if problem.question not in questions:
            questions.add(problem.question)
            drawn += 1
            yield problem


def _row(index: int, problem: Problem, rng: Random) -> Row:
    return Row(
        id=f"q{index:05d}",
        question=problem.question,
        trace=write_trace(problem, rng),
        answer=problem.answer,
        reference=problem.answer,
        domain=problem.kind,
        source=SOURCE,
        metadata={"steps": problem.steps},
    )


def write_trace(problem: Problem, rng: Random) -> str:
    """Return the derivation as text; the last line gives the answer."""
    lines = [line.text for line in problem.lines]
    slips = [index for index, line in enumerate(problem.lines) if line.slip]
    if slips and rng.random() < CORRECTED:
        index = rng.choice(slips)
        slip = problem.lines[index].slip
        lines[index] = f"{slip}\n{rng.choice(NOTICED)}\n{lines[index]}"
    return "\n".join([*lines, rng.choice(ENDINGS).format(problem.answer)])
