"""The right answers of the pool's questions, computed from their facts in another way."""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

Facts = Mapping[str, Any]

MILLIMETRES = {"kilometres": 10**6, "metres": 10**3, "centimetres": 10, "millimetres": 1}
SECONDS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
GRAMS = {"tonnes": 10**6, "kilograms": 10**3, "grams": 1}
MILLILITRES = {"litres": 1000, "centilitres": 10, "millilitres": 1}
UNITS = MILLIMETRES | SECONDS | GRAMS | MILLILITRES
MONDAY = date(2023, 1, 2)


def arithmetic(facts: Facts) -> str:
    number = Fraction(facts["start"])
    for sign, other in facts["changes"]:
        number = {
            "+": number + other,
            "-": number - other,
            "*": number * other,
            "/": number / other,
        }[sign]
    return str(number)


def units(facts: Facts) -> str:
    total = sum(number * UNITS[unit] for number, unit in facts["amounts"])
    return str(Fraction(total, UNITS[facts["unit"]]))


def calendars(facts: Facts) -> str:
    if facts["family"] == "weekday":
        return f"{MONDAY + timedelta(facts['start'] + sum(facts['jumps'])):%A}"
    month, day = facts["start"]
    reached = date(2023, month, day) + timedelta(facts["days"])
    return f"{reached.day} {reached:%B}"


def sequences(facts: Facts) -> str:
    """Continue the sequence by the simplest rule that fits the numbers which are shown."""
    rule = next(rule for rule in RULES if rule(facts["shown"], 0) == facts["shown"])
    return str(rule(facts["shown"], facts["ahead"])[-1])


def _polynomial(shown: list[int], ahead: int) -> list[int]:
    """Continue with a constant second difference."""
    if len(shown) < 4:
        return []
    terms, (a, b, c) = list(shown[:3]), shown[:3]
    for _ in range(len(shown) + ahead - 3):
        terms.append(2 * terms[-1] - terms[-2] + (a - 2 * b + c))
    return terms


def _geometric(shown: list[int], ahead: int) -> list[int]:
    ratio = Fraction(shown[1], shown[0])
    return [int(shown[0] * ratio**power) for power in range(len(shown) + ahead)]


def _alternating(shown: list[int], ahead: int) -> list[int]:
    """Multiply and add in turns."""
    factor, step, terms = Fraction(shown[1], shown[0]), shown[2] - shown[1], [Fraction(shown[0])]
    for index in range(len(shown) + ahead - 1):
        terms.append(terms[-1] * factor if index % 2 == 0 else terms[-1] + step)
    return [int(term) for term in terms]


RULES = (_polynomial, _geometric, _alternating)
"""From the simplest."""


def ordering(facts: Facts) -> str:
    if facts["family"] == "sorted":
        numbers = sorted(facts["numbers"])
        return ", ".join(map(str, numbers if facts["rising"] else numbers[::-1]))
    people = {value: person for person, value in facts["values"].items()}
    place = facts["place"]
    value = sorted(people)[-place if facts["word"] == "highest" else place - 1]
    return str(people[value])


def letters(facts: Facts) -> str:
    words = facts["words"]
    if facts["family"] == "counted":
        return str(sum(each == facts["letter"] for word in words for each in word))
    if facts["family"] == "reversed":
        return "".join(reversed(words[0]))
    return "".join([*zip(*(word.ljust(20) for word in words), strict=True)][facts["place"]])


def sets(facts: Facts) -> str:
    if facts["family"] == "counts":
        first, second, both, neither = facts["parts"]
        return str(neither if facts["asks"] == "neither" else first + second + both)
    first_bag, *others = map(set, facts["bags"].values())
    for bag, operation in zip(others, facts["operations"], strict=True):
        first_bag = first_bag & bag if operation == "and" else first_bag - bag
    return str(len(first_bag))


def logic(facts: Facts) -> str:
    if facts["family"] == "order":
        above = {upper for upper, _ in facts["pairs"]}
        below = {lower for _, lower in facts["pairs"]}
        (only,) = above - below if facts["most"] else below - above
        return str(only)
    known: set[str] = {facts["given"]}
    while following := {b for a, b in facts["rules"] if a in known} - known:
        known |= following
    return "yes" if facts["goal"] in known else "no"


def money(facts: Facts) -> str:
    cents = sum(count * int(price * 100) for count, _, price in facts["goods"])
    if facts["paid"] is not None:
        cents = int(facts["paid"] * 100) - cents
    return f"{Decimal(cents) / 100:.2f}"


def geometry(facts: Facts) -> str:
    sizes = facts["sizes"]
    return str(SHAPES[facts["shape"]](*sizes))


SHAPES: Mapping[str, Callable[..., int]] = {
    "triangle": lambda a, b: 180 - a - b,
    "perimeter": lambda a, b: a + b + a + b,
    "box": lambda a, b, c: c * b * a,
    "frame": lambda a, b, c, d: a * b - c * d,
    "corner": lambda a, b, c, d, e: a * b * e + c * d * e,
}


def clocks(facts: Facts) -> str:
    minutes = facts["start"] + sum(facts["durations"])
    return f"{minutes // 60}:{minutes % 60:02d}"


def routes(facts: Facts) -> str:
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    signs = {facts["asks"]: 1, opposite[facts["asks"]]: -1}
    return str(sum(number * signs.get(direction, 0) for number, direction in facts["legs"]))


SOLVERS: Mapping[str, Callable[[Facts], str]] = {
    solver.__name__: solver
    for solver in (
        arithmetic, units, calendars, sequences, ordering, letters, sets, logic, money, geometry,
        clocks, routes,
    )
}  # fmt: skip
