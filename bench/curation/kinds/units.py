"""Units: amounts in several units, together in one."""

from random import Random

from bench.curation.kinds.base import Line, Problem, calculate, listed
from bench.curation.kinds.words import NAMES

FAMILIES = {
    "length": {"kilometres": 1_000_000, "metres": 1000, "centimetres": 10, "millimetres": 1},
    "time": {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1},
    "mass": {"tonnes": 1_000_000, "kilograms": 1000, "grams": 1},
    "volume": {"litres": 1000, "centilitres": 10, "millilitres": 1},
}
MAX_FACTOR = 3600
TEXTS = {
    "length": (
        "{name} walks along paths of {amounts}. How many {unit} is that in all?",
        "A cable is laid in pieces of {amounts} for {name}. What is its length in {unit}?",
        "For a fence, {name} needs wire of {amounts}. Give the total in {unit}.",
    ),
    "time": (
        "{name} works on a model for {amounts}. How many {unit} is that together?",
        "The parts of a film by {name} take {amounts}. How long is it in {unit}?",
        "{name} waits for {amounts}. Convert the whole wait to {unit}.",
    ),
    "mass": (
        "{name} loads a cart with sacks of {amounts}. How many {unit} does it carry?",
        "A recipe by {name} asks for {amounts} of flour. What is that in {unit}?",
        "{name} sends parcels of {amounts}. What do they weigh in {unit}?",
    ),
    "volume": (
        "{name} pours {amounts} of water into a tank. How many {unit} are in it?",
        "A drink by {name} is mixed from {amounts}. What is that in {unit}?",
        "{name} collects {amounts} of rain. Give the sum in {unit}.",
    ),
}


def units(rng: Random, steps: int) -> Problem:
    """Return a problem with as many amounts as steps."""
    family = rng.choice(sorted(FAMILIES))
    sizes = FAMILIES[family]
    names = list(sizes)
    small = rng.randrange(1, len(names))
    target = names[small]
    larger = [each for each in names[:small] if sizes[each] // sizes[target] <= MAX_FACTOR]
    amounts = [(rng.randint(2, 40), rng.choice(larger))]
    amounts += [(rng.randint(2, 60), rng.choice([*larger, target])) for _ in range(steps - 1)]
    rng.shuffle(amounts)
    lines, converted = [Line(f"Everything must be in {target}.")], []
    for number, unit in amounts:
        if unit == target:
            lines.append(Line(f"{number} {unit} stay as they are."))
            converted.append(number)
            continue
        factor = sizes[unit] // sizes[target]
        before = f"{number} {unit} have {factor} {target} each: "
        result, line = calculate(rng, number, "*", factor, before)
        lines.append(line)
        converted.append(result)
    total = converted[0]
    for number in converted[1:]:
        total, line = calculate(rng, total, "+", number, "Add: ")
        lines.append(line)
    text = rng.choice(TEXTS[family])
    question = text.format(
        name=rng.choice(NAMES),
        amounts=listed([f"{number} {unit}" for number, unit in amounts]),
        unit=target,
    )
    facts = {"amounts": amounts, "unit": target, "family": family}
    return Problem("units", steps, question, lines, str(total), facts)
