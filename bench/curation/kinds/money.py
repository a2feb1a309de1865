"""Money: prices, sums and change in euros and cents."""

from decimal import Decimal
from random import Random

from bench.curation.kinds.base import Line, Problem, calculate, listed, plural
from bench.curation.kinds.words import NAMES, PLACES, THINGS

CENT = Decimal("0.01")


def money(rng: Random, steps: int) -> Problem:
    """Return a problem of a purchase of as many goods as steps, paid with a round sum."""
    name, place = rng.choice(NAMES), rng.choice(PLACES)
    goods = [
        (rng.randint(2, 9), thing, Decimal(rng.randint(1, 80)) * Decimal("0.05"))
        for thing in rng.sample(THINGS, steps)
    ]
    goods = [(count, thing, price.quantize(CENT)) for count, thing, price in goods]
    total = sum((count * price for count, _, price in goods), Decimal(0))
    paid = Decimal(next(each for each in (5, 10, 20, 50, 100, 200, 500) if each > total)).quantize(
        CENT
    )
    asks_change = rng.random() < 0.6
    bought = listed(
        [f"{plural(count, thing)} at {price} euros each" for count, thing, price in goods]
    )
    if asks_change:
        texts = (
            f"{place.capitalize()} {name} buys {bought} and pays {paid} euros. How much is the "
            "change?",
            f"{place.capitalize()} {name} takes {bought}. What is left of {paid} euros?",
            f"With {paid} euros {name} pays for {bought}. How much is left, in euros?",
        )
    else:
        texts = (
            f"{name} buys {bought} {place}. What does it cost together, in euros?",
            f"{place.capitalize()} {name} takes {bought}. How many euros is the bill?",
            f"What must {name} pay, in euros, for {bought}?",
        )
    lines, costs = [Line(f"{name} pays for {listed([thing + 's' for _, thing, _ in goods])}.")], []
    for count, thing, price in goods:
        cost, line = calculate(rng, price, "*", Decimal(count), f"The {thing}s cost ")
        costs.append(cost)
        lines.append(line)
    result = costs[0]
    for cost in costs[1:]:
        result, line = calculate(rng, result, "+", cost, "Together: ")
        lines.append(line)
    if asks_change:
        result, line = calculate(rng, paid, "-", result, "The change is ")
        lines.append(line)
    facts = {"goods": goods, "paid": paid if asks_change else None}
    return Problem("money", steps, rng.choice(texts), lines, str(result), facts)
