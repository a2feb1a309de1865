"""Arithmetic in words: a number of things that changes."""

from collections.abc import Sequence
from random import Random

from bench.curation.kinds.base import Line, Problem, calculate, plural
from bench.curation.kinds.words import NAMES, PLACES, THINGS

OPENINGS = (
    "{name} has {count} {place}.",
    "{place_first}, {name} counts {count}.",
    "{name} starts the day with {count} {place}.",
    "There are {count} {place}, and all of them belong to {name}.",
)
CHANGES = {
    "+": (
        "Then {friend} brings {number} more.",
        "{friend} adds another {number}.",
        "{name} finds {number} more.",
    ),
    "-": (
        "{number} of them get lost.",
        "{name} gives {number} of them to {friend}.",
        "Then {friend} takes {number} away.",
    ),
    "*": (
        "By the evening {name} has {number} times as many.",
        "Soon there are {number} times as many.",
    ),
    "/": (
        "{name} shares equally with others, {number} people in all.",
        "They are put into {number} equal boxes, and {name} keeps one box.",
    ),
}
CLOSINGS = (
    "How many {things} does {name} have now?",
    "How many {things} are left for {name}?",
    "What is the number of {things} that {name} has in the end?",
    "At the end, how many {things} does {name} own?",
)


def arithmetic(rng: Random, steps: int) -> Problem:
    """Return a problem with as many changes as steps."""
    name, *friends = rng.sample(NAMES, 4)
    thing, place = rng.choice(THINGS), rng.choice(PLACES)
    start = total = rng.randint(6, 60)
    changes: list[tuple[str, int]] = []
    sentences, lines = [], [Line(f"{name} starts with {plural(start, thing)}.")]
    for _ in range(steps):
        sign, number = _change(rng, total, [each for each, _ in changes])
        changes.append((sign, number))
        text = rng.choice(CHANGES[sign])
        sentences.append(text.format(name=name, friend=rng.choice(friends), number=number))
        total, line = calculate(rng, total, sign, number, _reason(rng, sign))
        lines.append(line)
    count = plural(start, thing)
    opening = rng.choice(OPENINGS).format(
        name=name, count=count, place=place, place_first=place.capitalize()
    )
    closing = rng.choice(CLOSINGS).format(things=f"{thing}s", name=name)
    facts = {"start": start, "changes": changes}
    question = " ".join([opening, *sentences, closing])
    return Problem("arithmetic", steps, question, lines, str(total), facts)


def _change(rng: Random, total: int, before: Sequence[str]) -> tuple[str, int]:
    """Return a change that leaves a positive integer of moderate size."""
    possible = {"+": rng.randint(3, 60)}
    if total > 4:
        possible["-"] = rng.randint(2, total - 2)
    if total <= 120 and "*" not in before[-2:]:
        possible["*"] = rng.randint(2, 6)
    divisors = [each for each in range(2, 10) if total % each == 0 and total > each]
    if divisors:
        possible["/"] = rng.choice(divisors)
    sign = rng.choice(sorted(possible))
    return sign, possible[sign]


def _reason(rng: Random, sign: str) -> str:
    texts = {
        "+": ("Some more come: ", "Now we add: "),
        "-": ("Some go away: ", "Now we subtract: "),
        "*": ("It is multiplied: ", "Now we multiply: "),
        "/": ("It is shared equally: ", "Now we divide: "),
    }
    return rng.choice(texts[sign])
