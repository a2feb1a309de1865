"""Geometry: lengths, areas, volumes and angles of simple shapes."""

from collections.abc import Callable
from random import Random

from bench.curation.kinds.base import Line, Problem, calculate
from bench.curation.kinds.words import NAMES, PLACES

Parts = tuple[str, str, list[Line], int, dict[str, object]]


def geometry(rng: Random, steps: int) -> Problem:
    """Return a problem about a shape; the more steps, the more parts it has."""
    shapes: tuple[tuple[Callable[[Random], Parts], ...], ...] = (
        (_triangle,),
        (_perimeter, _box),
        (_frame,),
        (_corner,),
    )
    described, asked, lines, answer, facts = rng.choice(shapes[min(steps, 4) - 1])(rng)
    name, place = rng.choice(NAMES), rng.choice(PLACES)
    texts = (
        f"{name} draws {described} {place}. {asked}",
        f"There is {described} {place}, says {name}. {asked}",
        f"{place.capitalize()}, {name} measures {described}. {asked}",
    )
    return Problem("geometry", steps, rng.choice(texts), lines, str(answer), facts)


def _triangle(rng: Random) -> Parts:
    first = rng.randint(20, 100)
    second = rng.randint(20, 170 - first)
    together, one = calculate(rng, first, "+", second, "Two angles together: ")
    third, two = calculate(rng, 180, "-", together, "The third is ")
    described = f"a triangle with one angle of {first} degrees and another of {second} degrees"
    lines = [Line("The angles of a triangle make 180 degrees."), one, two]
    asked = rng.choice(("How large is its third angle?", "What is the third angle in degrees?"))
    return described, asked, lines, third, {"shape": "triangle", "sizes": (first, second)}


def _perimeter(rng: Random) -> Parts:
    a, b = rng.randint(3, 90), rng.randint(3, 90)
    half, one = calculate(rng, a, "+", b, "Two sides together: ")
    around, two = calculate(rng, half, "*", 2, "All four sides: ")
    described = f"a rectangle {a} metres long and {b} metres wide"
    lines = [Line("Opposite sides of a rectangle are equal."), one, two]
    asked = rng.choice(("How many metres is it around?", "What is its perimeter in metres?"))
    return described, asked, lines, around, {"shape": "perimeter", "sizes": (a, b)}


def _box(rng: Random) -> Parts:
    a, b, c = (rng.randint(2, 20) for _ in range(3))
    base, one = calculate(rng, a, "*", b, "The base: ")
    volume, two = calculate(rng, base, "*", c, "Times the height: ")
    described = f"a box {a} cm long, {b} cm wide and {c} cm high"
    lines = [Line("The volume is the base times the height."), one, two]
    asked = rng.choice(
        ("How many cubic centimetres fit in?", "What is its volume in cubic centimetres?")
    )
    return described, asked, lines, volume, {"shape": "box", "sizes": (a, b, c)}


def _frame(rng: Random) -> Parts:
    a, b = rng.randint(8, 40), rng.randint(8, 40)
    c, d = rng.randint(2, a - 3), rng.randint(2, b - 3)
    outer, one = calculate(rng, a, "*", b, "The whole: ")
    inner, two = calculate(rng, c, "*", d, "The hole: ")
    left, three = calculate(rng, outer, "-", inner, "What remains: ")
    described = f"a plate {a} cm by {b} cm with a hole {c} cm by {d} cm"
    asked = rng.choice(
        ("How many square centimetres remain?", "What is the area without the hole?")
    )
    return described, asked, [one, two, three], left, {"shape": "frame", "sizes": (a, b, c, d)}


def _corner(rng: Random) -> Parts:
    a, b = rng.randint(8, 30), rng.randint(8, 30)
    c, d = rng.randint(2, 20), rng.randint(2, 20)
    height = rng.randint(2, 9)
    first, one = calculate(rng, a, "*", b, "The first part: ")
    second, two = calculate(rng, c, "*", d, "The second part: ")
    base, three = calculate(rng, first, "+", second, "Both: ")
    volume, four = calculate(rng, base, "*", height, "Times the depth: ")
    described = (
        f"a pond of two rectangles, {a} m by {b} m and {c} m by {d} m, everywhere {height} m deep"
    )
    asked = rng.choice(
        ("How many cubic metres of water fit in?", "What is its volume in cubic metres?")
    )
    sizes = (a, b, c, d, height)
    return described, asked, [one, two, three, four], volume, {"shape": "corner", "sizes": sizes}
