"""Simple logic: orders from comparisons, and chains of conditions."""

from itertools import pairwise
from random import Random

from bench.curation.kinds.base import Line, Problem
from bench.curation.kinds.words import ADJECTIVES, NAMES

EVENTS = (
    "it rains", "the bridge is closed", "the bus is late", "the shop opens", "the lamp is on",
    "the bell rings", "the gate is locked", "the train stops", "the well is full", "dogs bark",
    "the music plays", "the oven is hot", "the road is wet", "the flag is up", "the tower is lit",
    "it snows", "children sing", "the ferry waits", "bread is sold", "the mill turns", "wind blows",
    "the hall is full", "coffee is made", "the pool is empty", "the market ends", "geese fly south",
    "the guard sleeps", "two lights blink", "the door is open", "the clock is wrong", "horns sound",
    "the roof leaks", "fish are caught", "the lift is broken", "smoke rises", "the stove is cold",
)  # fmt: skip


def logic(rng: Random, steps: int) -> Problem:
    """Return a problem of an order among people, or of a chain of conditions."""
    return rng.choice((_order, _chain))(rng, steps)


def _order(rng: Random, steps: int) -> Problem:
    people = rng.sample(NAMES, steps + 2)
    word, most, least = rng.choice(ADJECTIVES)
    pairs = list(pairwise(people))
    shuffled = rng.sample(pairs, len(pairs))
    asks_most = rng.random() < 0.5
    answer = people[0] if asks_most else people[-1]
    sentences = " ".join(f"{a} is {word} than {b}." for a, b in shuffled)
    asked = most if asks_most else least
    texts = (
        f"{sentences} Who is the {asked}?",
        f"{sentences} Which of them is the {asked} of all?",
        f"Here is what is known. {sentences} Name the {asked}.",
    )
    lines = [Line(f"We look for someone who is {'above' if asks_most else 'below'} all others.")]
    for upper, lower in reversed(pairs) if asks_most else pairs:
        lines.append(Line(f"{upper} is {word} than {lower}.", f"{lower} is {word} than {upper}."))
    relation = "Nobody is" if asks_most else f"{answer} is {word} than"
    ending = f"{word} than {answer}" if asks_most else "nobody"
    lines.append(Line(f"{relation} {ending}."))
    facts = {"family": "order", "pairs": shuffled, "most": asks_most}
    return Problem("logic", steps, rng.choice(texts), lines, answer, facts)


def _chain(rng: Random, steps: int) -> Problem:
    """Return a problem whose conditions lead to the last event, or break off before it."""
    events = rng.sample(EVENTS, steps + 3)
    chain, spare = events[: steps + 2], events[-1]
    conditions = list(pairwise(chain))
    broken = rng.randrange(len(conditions)) if rng.random() < 0.5 else None
    if broken is not None:
        # The event that would be needed is replaced, so that the chain cannot be followed.
        conditions[broken] = (conditions[broken][0], spare)
    shuffled = rng.sample(conditions, len(conditions))
    sentences = " ".join(f"If {a}, then {b}." for a, b in shuffled)
    name = rng.choice(NAMES)
    texts = (
        f"{sentences} Now {chain[0]}, says {name}. Does it follow that {chain[-1]}, yes or no?",
        f"{name} knows these rules. {sentences} And indeed {chain[0]}. Can {name} be sure that "
        f"{chain[-1]}, yes or no?",
        f"{sentences} {name} sees that {chain[0]}. Is it certain that {chain[-1]}, yes or no?",
    )
    lines = [Line(f"We know that {chain[0]}.")]
    known = chain[0]
    following = dict(conditions)
    while known in following:
        lines.append(Line(f"If {known}, then {following[known]}, so {following[known]}."))
        known = following[known]
    answer = "yes" if known == chain[-1] else "no"
    lines.append(
        Line(f"This is what was asked: {chain[-1]}.")
        if answer == "yes"
        else Line(f"No rule goes on from there, so it does not follow that {chain[-1]}.")
    )
    facts = {"family": "chain", "rules": shuffled, "given": chain[0], "goal": chain[-1]}
    return Problem("logic", steps, rng.choice(texts), lines, answer, facts)
