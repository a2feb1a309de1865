"""The classifier `rules`: a table of weighted signals, without a trained model."""

import math
from collections.abc import Mapping
from itertools import pairwise

from proctor.router.conversation import Conversation
from proctor.router.features import signals
from proctor.router.features.parsing import ParsedPrompt, parse_prompt, parse_text
from proctor.router.features.signal_texts import FIRST, LAST, text_of
from proctor.router.prediction import Prediction, Probabilities, Signal

BASE_SCORE = 0.75
"""The score of a prompt without any signal."""

WEIGHTS = {
    # the instruction
    "prove": 0.5,
    "prove_first": 0.4,
    "math_proof": 1.6,
    "math_proof_first": 0.8,
    "compute": 0.4,
    "compute_first": 0.3,
    "optimum": 0.3,
    "higher_math": 0.9,
    "math_optimum": 1.2,
    "geometry": 0.6,
    "chance": 0.5,
    "chance_with_numbers": 1.0,
    "school_math": 0.4,
    "logic": 0.8,
    "program": 0.4,
    "build_program": 1.2,
    "debug": 0.2,
    "faulty_code": 0.7,
    "redesign": 0.7,
    "systems": 0.7,
    "faulty_system": 1.2,
    "analyse": 0.6,
    "plan": 0.6,
    "contest": 0.8,
    "depth": 0.5,
    "expert": 0.4,
    "build": 0.15,
    "explain": 0.3,
    "transform": -0.3,
    "transform_first": -0.6,
    "edit_text": -0.8,
    "create": -0.3,
    "fact_first": -0.15,
    "plain_fact": -0.35,
    "greet_first": -0.3,
    "personal": -0.15,
    "format": 0.4,
    "plain_format": 0.3,
    "playful": -0.3,
    "short_playful": -0.4,
    "careful": 0.2,
    "quick": -0.2,
    # notation and layout
    "quantity_with_numbers": 0.9,
    "multi_step_arithmetic": 1.0,
    "four_or_more_numbers": 0.2,
    "latex": 0.7,
    "math_in_latex": 1.0,
    "powers": 0.5,
    "variables": 0.5,
    "operators": 0.3,
    "code": 0.4,
    "instruction_length": 0.8,
    "few_words": -0.5,
    "short_plain": -0.5,
    "empty": -1.0,
    "tools": 0.2,
    # context
    "previous_turn_score": 0.25,
    "short_follow_up": 0.3,
    "follow_up_score": 1.0,
}
"""Weights by signal, in levels: a score below 1 means none, below 2 low, below 3 medium."""

BORDERS = (1.0, 2.0, 3.0)
STEEPNESS = 2.5
"""Scores between adjacent levels, and the steepness of the logistic function at each."""

MAX_FOLLOW_UP_LENGTH = 40
"""Maximum length in characters of a question that is judged together with the turn before."""

MAX_SIGNALS = 8
"""Maximum number of signals in a prediction."""

EMPTY_PROMPT = ParsedPrompt("", 0, "", 0, 0, fenced=False, has_directives=False)


class Rules:
    """The classifier `rules`."""

    def classify(self, conversation: Conversation) -> Prediction:
        prompt = parse_prompt(conversation)
        features = extract_with_context(prompt)
        evidence = [
            Signal(label(name, features), round(weight * features.values[name], 3))
            for name, weight in WEIGHTS.items()
            if features.values[name]
        ]
        return Prediction(
            level_probabilities(score(features.values)),
            rank(evidence, has_directives=prompt.has_directives),
        )


def extract_with_context(prompt: ParsedPrompt) -> signals.Features:
    """Return the signals of a prompt, including the rules' score of the previous turn."""
    features = signals.extract_features(prompt)
    values = features.values
    values["previous_turn_score"] = values["follow_up_score"] = 0.0
    if prompt.previous_prompt:
        previous_score = score(extract_with_context(parse_text(prompt.previous_prompt)).values)
        values["previous_turn_score"] = min(1.0, max(0.0, previous_score / len(BORDERS)))
        if is_follow_up(prompt, values):
            values["follow_up_score"] = values["previous_turn_score"]
    return features


def is_follow_up(prompt: ParsedPrompt, values: Mapping[str, float]) -> bool:
    """Return whether a prompt is a short question about the previous turn, such as "why?"."""
    is_question = values["explain"] or values["prove"] or values["questions"]
    is_short = len(prompt.text) <= MAX_FOLLOW_UP_LENGTH and not values["greet"]
    return bool(prompt.previous_prompt and is_question and is_short)


def score(values: Mapping[str, float]) -> float:
    """Return the weighted sum of the signals, on the scale of `BORDERS`."""
    return BASE_SCORE + sum(weight * values[name] for name, weight in WEIGHTS.items())


def level_probabilities(score: float) -> Probabilities:
    """Convert a score to probabilities of the levels."""
    below = [0.0, *(1.0 / (1.0 + math.exp(STEEPNESS * (score - at))) for at in BORDERS), 1.0]
    none, low, medium, high = (upper - lower for lower, upper in pairwise(below))
    return none, low, medium, high


def label(identifier: str, features: signals.Features) -> str:
    """Return a signal's text, followed by the lexicon term that matched, if any."""
    text = text_of(identifier)
    term = features.terms.get(identifier.removesuffix(FIRST).removesuffix(LAST))
    return text if term is None else f"{text} ({term})"


def rank(evidence: list[Signal], *, has_directives: bool) -> tuple[Signal, ...]:
    """Return the strongest signals, strongest first; a note on removed directives comes last."""
    strongest = sorted(evidence, key=lambda signal: -abs(signal.weight))[:MAX_SIGNALS]
    if has_directives:
        strongest.append(Signal(text_of("directives_removed"), 0.0))
    return tuple(strongest)
