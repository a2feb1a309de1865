"""Properties of traces: loops, repetition, self-corrections, and answers that come first."""

import re
from collections.abc import Iterator, Sequence

from proctor.budget.loops import LoopDetector
from proctor.curation.answers import CLAIM, last_boxed, normal

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
CUE = re.compile(
    r"(?:but |hmm,? |no,? |oh,? )*\b(?:wait|hold on|actually|alternatively|on second thought"
    r"|let me (?:re-?check|double[- ]check|verify|think again|reconsider|try again))\b",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence that takes back or checks what was said before."""

_FILLER_WORDS = (
    "wait hold on actually alternatively hmm okay ok oh so now well let me us i we think thinking "
    "about this that it step by again carefully check double recheck verify see sure make yes no "
    "right correct good fine is are was were be will can need needs should must have has do does "
    "did the a an and or but if of to in for from with as at my our answer question problem "
    "solution solve first then therefore thus hence just really indeed still same before one thing "
    "consider reconsider try look looking find what how why here there out go going start"
)
FILLER = frozenset(_FILLER_WORDS.split())
"""Words that say nothing about what a question is about."""


def loop_end(ids: Sequence[int], weights: bytes) -> int | None:
    """Return the number of tokens after which the server's loop guard fires, or None.

    Args:
        ids: the tokens of a trace.
        weights: the weight of each token id, see `Vocabulary.weights`.
    """
    detector = LoopDetector(weights)
    return next((count for count, token in enumerate(ids, 1) if detector.advance(token)), None)


def repeated_share(text: str, length: int) -> float:
    """Return the share of a text's word n-grams that occurred before, 0 to 1."""
    words = WORD.findall(text.lower())
    grams = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def sentences(text: str) -> list[str]:
    """Return the sentences and lines of a text."""
    return [part for part in (part.strip() for part in SENTENCE_END.split(text)) if part]


def new_words(trace: str, question: str) -> set[str]:
    """Return the words of a trace that are neither in the question nor filler."""
    return {*WORD.findall(trace.lower())} - {*WORD.findall(question.lower())} - FILLER


def corrections(trace: str) -> Iterator[tuple[str, bool]]:
    """Yield each self-correction of a trace, and whether it brings anything new.

    A self-correction is a sentence that begins with a cue such as "Wait", and all sentences up to
    the next cue. It brings something new if it has a word or number that is no filler and that
    did not occur before it.
    """
    seen: set[str] = set()
    segment: list[str] = []
    for sentence in [*sentences(trace), ""]:
        if not sentence or CUE.match(sentence):
            words = {*WORD.findall(" ".join(segment).lower())}
            if segment and CUE.match(segment[0]):
                yield " ".join(segment), bool(words - seen - FILLER)
            seen |= words
            segment = []
        segment.append(sentence)


def answer_given_away(trace: str, answer: str, opening: int) -> str | None:
    """Return the sentence that states the answer at the start of a trace, or None.

    Args:
        trace: the trace.
        answer: the final answer.
        opening: the number of sentences at the start that are looked at, of those that are in
            the first half: short traces state the answer early.
    """
    parts = sentences(trace)
    for part in parts[: min(opening, (len(parts) - 1) // 2)]:
        claim = CLAIM.search(part)
        stated = last_boxed(part) or (claim and claim["value"])
        if stated and f"{normal(stated)} ".startswith(f"{normal(answer)} "):
            return part
    return None
