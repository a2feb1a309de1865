"""Sets: unions, intersections and differences, of counts or of listed members."""

from random import Random

from bench.curation.kinds.base import Line, Problem, calculate, listed
from bench.curation.kinds.words import HOBBIES, NAMES, THINGS


def sets(rng: Random, steps: int) -> Problem:
    """Return a problem: counts of two groups, or as many operations on lists as steps - 1."""
    return _counts(rng, steps) if steps <= 2 else _members(rng, steps - 2)


def _counts(rng: Random, steps: int) -> Problem:
    """Return a problem about a group: how many do one of two things, or (2 steps) neither."""
    first, second = rng.sample(HOBBIES, 2)
    name = rng.choice(NAMES)
    both, only_first, only_second = (rng.randint(2, 30) for _ in range(3))
    a, b, neither = only_first + both, only_second + both, rng.randint(1, 30)
    everyone = only_first + only_second + both + neither
    texts = (
        f"Of {everyone} people in {name}'s club, {a} like {first}, {b} like {second}, and {both} "
        "like both. ",
        f"{name} asks {everyone} pupils: {a} enjoy {first} and {b} enjoy {second}; {both} of these "
        "enjoy both. ",
        f"In a village of {everyone} people, says {name}, {a} do {first}, {b} do {second} and "
        f"{both} do both. ",
    )
    closing = (
        ("How many like at least one?", "How many like one of them or both?")
        if steps == 1
        else ("How many like neither?", "How many like none of them?")
    )
    lines = [Line("Those with both are counted twice in the sum.")]
    total, line = calculate(rng, a, "+", b, "The sum is ")
    lines.append(line)
    total, line = calculate(rng, total, "-", both, "At least one: ")
    lines.append(line)
    if steps == 2:
        total, line = calculate(rng, everyone, "-", total, "Neither: ")
        lines.append(line)
    facts = {
        "family": "counts",
        "parts": (only_first, only_second, both, neither),
        "asks": "neither" if steps == 2 else "either",
    }
    question = rng.choice(texts) + rng.choice(closing)
    return Problem("sets", steps, question, lines, str(total), facts)


def _members(rng: Random, operations: int) -> Problem:
    things = rng.sample(THINGS, 9)
    names = rng.sample(NAMES, operations + 1)
    bags = {name: rng.sample(things, rng.randint(5, 7)) for name in names}
    chosen = [rng.choice(("and", "not")) for _ in range(operations)]
    left = list(bags[names[0]])
    lines = [Line(f"We start with {names[0]}: {listed(left)}.")]
    conditions = []
    for name, operation in zip(names[1:], chosen, strict=True):
        kept = [each for each in left if (each in bags[name]) == (operation == "and")]
        wrong = [each for each in left if each not in kept]
        verb = "also has" if operation == "and" else "does not have"
        conditions.append(f"{name} {verb}")
        before = f"{name} {verb}: "
        lines.append(Line(f"{before}{_shown(kept)}.", f"{before}{_shown(wrong)}."))
        left = kept
    lines.append(Line(f"That makes {len(left)}."))
    shown = " ".join(f"{name} has {listed(bag)}." for name, bag in bags.items())
    texts = (
        f"{shown} How many things does {names[0]} have that {listed(conditions)}?",
        f"{shown} Count the things of {names[0]} that {listed(conditions)}.",
        f"{shown} Of what {names[0]} has, how many are things that {listed(conditions)}?",
    )
    facts = {"family": "members", "bags": bags, "operations": chosen}
    return Problem("sets", operations + 2, rng.choice(texts), lines, str(len(left)), facts)


def _shown(members: list[str]) -> str:
    return listed(members) if members else "nothing"
