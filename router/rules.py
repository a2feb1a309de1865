"""Judges by a table of weighted signals: nothing trained, nothing hidden."""

import math
from collections.abc import Mapping
from itertools import pairwise

from proctor.router import signals
from proctor.router.conversation import Conversation
from proctor.router.parsing import ParsedPrompt, parse_prompt, read_alone
from proctor.router.prediction import Prediction, Probabilities, Signal

START = 0.75
"""The score of a prompt of which nothing is seen."""

WEIGHTS = {
    # what is asked
    "prove": 0.5,
    "prove first": 0.4,
    "proof of mathematics": 1.6,
    "a proof asked first": 0.8,
    "compute": 0.4,
    "compute first": 0.3,
    "optimum": 0.3,
    "higher_math": 0.9,
    "extremes in mathematics": 1.2,
    "geometry": 0.6,
    "chance": 0.5,
    "chance with numbers": 1.0,
    "school_math": 0.4,
    "logic": 0.8,
    "program": 0.4,
    "a program to be built": 1.2,
    "debug": 0.2,
    "code and a fault": 0.7,
    "redesign": 0.7,
    "systems": 0.7,
    "systems at fault": 1.2,
    "analyse": 0.6,
    "plan": 0.6,
    "contest": 0.8,
    "depth": 0.5,
    "expert": 0.4,
    "build": 0.15,
    "explain": 0.3,
    "transform": -0.3,
    "transform first": -0.6,
    "work on a text": -0.8,
    "create": -0.3,
    "fact first": -0.15,
    "a fact and nothing more": -0.35,
    "greet first": -0.3,
    "personal": -0.15,
    "format": 0.4,
    "form": 0.3,
    "playful": -0.3,
    "playful and short": -0.4,
    "careful": 0.2,
    "quick": -0.2,
    # how it is written
    "a quantity asked of numbers": 0.9,
    "many steps with numbers": 1.0,
    "four numbers or more": 0.2,
    "LaTeX": 0.7,
    "mathematics in LaTeX": 1.0,
    "powers": 0.5,
    "variables": 0.5,
    "operators": 0.3,
    "code": 0.4,
    "length of the asking": 0.8,
    "a few words": -0.5,
    "short and plain": -0.5,
    "empty": -1.0,
    "tools": 0.2,
    # what was said before
    "the turn before": 0.25,
    "short after a turn": 0.3,
    "asks on": 1.0,
}
"""What each signal is worth, in levels: a score under 1 is none, under 2 low, under 3 medium."""

BORDERS = (1.0, 2.0, 3.0)
STEEPNESS = 2.5
"""Scores at which one level gives way to the next, and how fast."""

MOST_ASKING_ON = 40
"""Characters up to which a question cannot be understood without the turn before."""

MOST_SIGNALS = 8
"""Signals that a verdict names."""

NOTHING = ParsedPrompt("", 0, "", 0, 0, fenced=False, directed=False)
"""An empty prompt."""


class Rules:
    """The classifier `rules`."""

    def classify(self, conversation: Conversation) -> Prediction:
        """See `Classifier`."""
        reading = parse_prompt(conversation)
        seen = see(reading)
        evidence = [
            Signal(label(name, seen), round(weight * seen.values[name], 3))
            for name, weight in WEIGHTS.items()
            if seen.values[name]
        ]
        return Prediction(spread(score(seen.values)), ranked(evidence, directed=reading.directed))


def see(reading: ParsedPrompt) -> signals.Features:
    """The signals of a prompt, with what the rules make of the turn before."""
    seen = signals.extract_features(reading)
    values = seen.values
    values["the turn before"] = values["asks on"] = 0.0
    if reading.earlier:
        earlier = score(see(read_alone(reading.earlier)).values)
        values["the turn before"] = min(1.0, max(0.0, earlier / len(BORDERS)))
        if asks_on(reading, values):
            values["asks on"] = values["the turn before"]
    return seen


def asks_on(reading: ParsedPrompt, values: Mapping[str, float]) -> bool:
    """Whether a prompt is so short that only the turn before says what it asks: "why?"."""
    asks = values["explain"] or values["prove"] or values["questions"]
    fits = len(reading.text) <= MOST_ASKING_ON and not values["greet"]
    return bool(reading.earlier and asks and fits)


def score(values: Mapping[str, float]) -> float:
    """The sum that the table gives, on the scale of `BORDERS`."""
    return START + sum(weight * values[name] for name, weight in WEIGHTS.items())


def spread(at: float) -> Probabilities:
    """Probabilities of the levels around a score."""
    below = [0.0, *(1.0 / (1.0 + math.exp(STEEPNESS * (at - border))) for border in BORDERS), 1.0]
    none, low, medium, high = (most - least for least, most in pairwise(below))
    return none, low, medium, high


def label(name: str, seen: signals.Features) -> str:
    """A signal's name, with the word that gave it where there is one."""
    term = seen.terms.get(name.removesuffix(" first").removesuffix(" last"))
    return name if term is None else f"{name} ({term})"


def ranked(evidence: list[Signal], *, directed: bool) -> tuple[Signal, ...]:
    """The strongest first, and whether words about tiers were left out."""
    chosen = sorted(evidence, key=lambda signal: -abs(signal.weight))[:MOST_SIGNALS]
    if directed:
        chosen.append(Signal("words about tiers, left out", 0.0))
    return tuple(chosen)
