"""Routes over a grid of streets: a kind that is never trained on."""

from random import Random

from bench.curation.kinds.base import Line, Problem, calculate
from bench.curation.kinds.words import NAMES

OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def routes(rng: Random, steps: int) -> Problem:
    """Return a problem with as many turns as steps: how far the end is from the start."""
    name = rng.choice(NAMES)
    axis = rng.choice((("north", "south"), ("east", "west")))
    other = ("east", "west") if "north" in axis else ("north", "south")
    first, side = rng.choice(axis), rng.choice(other)
    legs = [(rng.randint(15, 60), first), (rng.randint(2, 14), side)]
    for index in range(steps):
        before = legs[index][1]
        legs.append((rng.randint(1, 14), OPPOSITE[before] if rng.random() < 0.6 else before))
    way = ", then ".join(f"{number} blocks {direction}" for number, direction in legs)
    texts = (
        f"{name} walks {way}. How many blocks {first} of the start is that?",
        f"From home {name} goes {way}. How far {first} of home does {name} end, in blocks?",
        f"The route of {name}: {way}. By how many blocks does it lead {first} in all?",
    )
    total = legs[0][0]
    lines = [
        Line(f"Only the ways {first} and {OPPOSITE[first]} count."),
        Line(f"{total} blocks {first}."),
    ]
    for number, direction in legs[1:]:
        if direction == first:
            total, line = calculate(rng, total, "+", number, f"Also {direction}: ")
        elif direction == OPPOSITE[first]:
            total, line = calculate(rng, total, "-", number, f"Back {direction}: ")
        else:
            line = Line(f"{number} blocks {direction} do not count.")
        lines.append(line)
    facts = {"legs": legs, "asks": first}
    return Problem("routes", steps, rng.choice(texts), lines, str(total), facts)
