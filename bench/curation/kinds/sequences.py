"""Sequences: the next terms of a rule that must be seen."""

from itertools import pairwise
from random import Random

from bench.curation.kinds.base import Line, Problem, calculate, listed
from bench.curation.kinds.words import NAMES, PLACES

TEXTS = (
    "{name} writes a sequence on the wall {place}: {terms}. Which number stands {where}?",
    "Look at the numbers {terms}, noted by {name} {place}. What is the {ordinal} number then?",
    "A machine of {name}'s prints {terms} {place}. Which number is {where}?",
    "{terms}: {name} found this sequence {place}. Find the {ordinal} number after them.",
)
WHERE = {1: ("next", "next"), 2: ("two places later", "second"), 3: ("three places later", "third")}


def sequences(rng: Random, steps: int) -> Problem:
    """Return a problem: equal differences, factors, growing differences, or both in turns."""
    rule = (_equal, _factor, _growing, _in_turns)[min(steps, 4) - 1]
    ahead = 1 if steps < 4 else min(3, steps - 3)
    terms, lines = rule(rng, ahead)
    shown, answer = terms[:-ahead], terms[-1]
    where, ordinal = WHERE[ahead]
    question = rng.choice(TEXTS).format(
        name=rng.choice(NAMES),
        place=rng.choice(PLACES),
        terms=", ".join(map(str, shown)),
        where=where,
        ordinal=ordinal,
    )
    facts = {"rule": rule.__name__, "shown": shown, "ahead": ahead}
    return Problem(
        "sequences", steps, question[0].upper() + question[1:], lines, str(answer), facts
    )


def _extend(rng: Random, terms: list[int], changes: list[tuple[str, int]]) -> list[Line]:
    lines = []
    for sign, number in changes:
        term, line = calculate(rng, terms[-1], sign, number, "Next: ")
        terms.append(term)
        lines.append(line)
    return lines


def _equal(rng: Random, ahead: int) -> tuple[list[int], list[Line]]:
    step = rng.randint(2, 40)
    first = rng.randint(1, 80)
    terms = [first + step * index for index in range(rng.randint(4, 5))]
    seen = [Line(f"From {a} to {b} the step is {b - a}.") for a, b in pairwise(terms)]
    return terms, [*seen[:3], *_extend(rng, terms, [("+", step)] * ahead)]


def _factor(rng: Random, ahead: int) -> tuple[list[int], list[Line]]:
    factor = rng.randint(2, 4)
    terms = [rng.randint(2, 25)]
    for _ in range(3):
        terms.append(terms[-1] * factor)
    steps = listed([b - a for a, b in pairwise(terms)])
    seen = [
        Line(f"The steps are {steps}, so they are not equal."),
        Line(f"But each number is {factor} times the one before it."),
    ]
    return terms, [*seen, *_extend(rng, terms, [("*", factor)] * ahead)]


def _growing(rng: Random, ahead: int) -> tuple[list[int], list[Line]]:
    step, growth = rng.randint(1, 9), rng.randint(1, 6)
    terms = [rng.randint(1, 40)]
    for index in range(4):
        terms.append(terms[-1] + step + growth * index)
    steps = [b - a for a, b in pairwise(terms)]
    following, line = calculate(rng, steps[-1], "+", growth, "The next step is ")
    seen = [Line(f"The steps are {listed(steps)}."), Line(f"They grow by {growth}."), line]
    return terms, [*seen, *_extend(rng, terms, [("+", following)] * ahead)]


def _in_turns(rng: Random, ahead: int) -> tuple[list[int], list[Line]]:
    factor, step = rng.randint(2, 3), rng.randint(1, 9)
    turns = [("*", factor), ("+", step)]
    terms = [rng.randint(2, 9)]
    _extend(rng, terms, turns * 2)
    seen = [
        Line(f"From {terms[0]} to {terms[1]} it is times {factor}."),
        Line(f"From {terms[1]} to {terms[2]} it is plus {step}."),
        Line(f"From {terms[2]} to {terms[3]} it is times {factor} again."),
    ]
    return terms, [*seen, *_extend(rng, terms, [turns[index % 2] for index in range(ahead)])]
