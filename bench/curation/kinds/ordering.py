"""Comparison and sorting: numbers in order, and places in a ranking."""

from random import Random

from bench.curation.kinds.base import Line, Problem, listed
from bench.curation.kinds.words import NAMES

MEASURES = (
    ("height", "centimetres", 120, 199),
    ("score", "points", 10, 99),
    ("time", "seconds", 40, 180),
)
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")


def ordering(rng: Random, steps: int) -> Problem:
    """Return a problem with as many places to fill as steps, of two more entries."""
    return rng.choice((_sorted, _ranked))(rng, steps)


def _sorted(rng: Random, steps: int) -> Problem:
    name = rng.choice(NAMES)
    rising = rng.random() < 0.5
    low = rng.choice((1, 100, 1000))
    numbers = rng.sample(range(low, low * 10 + 90), steps + 2)
    first, last = ("smallest", "largest") if rising else ("largest", "smallest")
    texts = (
        f"{name} puts the numbers {listed(numbers)} in order, the {first} first. What is the list?",
        f"Sort {listed(numbers)} from {first} to {last} for {name}.",
        f"On {name}'s cards are {', '.join(map(str, numbers))}. Order them by size, the {first} "
        "first. What do you get?",
    )
    left, done, lines = list(numbers), list[int](), []
    while len(left) > 1:
        best = min(left) if rising else max(left)
        wrong = rng.choice([each for each in left if each != best])
        before = f"Of {listed(left)} the {first} is "
        lines.append(Line(f"{before}{best}.", f"{before}{wrong}."))
        left.remove(best)
        done.append(best)
    lines.append(Line(f"Only {left[0]} is left."))
    answer = ", ".join(map(str, [*done, *left]))
    facts = {"family": "sorted", "numbers": numbers, "rising": rising}
    return Problem("ordering", steps, rng.choice(texts), lines, answer, facts)


def _ranked(rng: Random, steps: int) -> Problem:
    people = rng.sample(NAMES, steps + 2)
    measure, unit, low, high = rng.choice(MEASURES)
    values = dict(zip(people, rng.sample(range(low, high), len(people)), strict=True))
    word = rng.choice(("highest", "lowest"))
    place = ORDINALS[steps - 1] + " " if steps > 1 else ""
    shown = listed([f"{person} {value}" for person, value in values.items()])
    texts = (
        f"The {measure}s in {unit} are: {shown}. Who has the {place}{word} {measure}?",
        f"A list says, in {unit}: {shown}. Whose {measure} is the {place}{word} one?",
        f"By {measure} in {unit}, {shown} were noted. Name the one with the {place}{word}.",
    )
    ranking = sorted(people, key=lambda each: values[each], reverse=word == "highest")
    lines = [Line(f"We look for the {place}{word} {measure}.")]
    for index, person in enumerate(ranking[:steps]):
        left = [each for each in people if each not in ranking[:index]]
        wrong = rng.choice([each for each in left if each != person])
        before = f"Of {listed([values[each] for each in left])} the {word} is "
        lines.append(
            Line(
                f"{before}{values[person]}, which is {person}.",
                f"{before}{values[wrong]}, which is {wrong}.",
            )
        )
    facts = {"family": "ranked", "values": values, "word": word, "place": steps}
    return Problem("ordering", steps, rng.choice(texts), lines, ranking[steps - 1], facts)
