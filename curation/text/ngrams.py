"""Finds texts that share n-grams with the questions of evaluations."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

LENGTH = 13
"""Words of an n-gram, as s1 and GPT-3 before it use."""

MIN_CONTAINED = 8
"""Words of the shortest question that other texts are searched for."""

LATEX_SPACING = re.compile(
    r"\\(?:[,;:!> ]|quad\b|qquad\b|left\b|right\b|displaystyle\b)|~|\$|\\[()\[\]]"
)
LATEX_FRACTION = re.compile(r"\\[dtc]?frac\b")
LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\b")
THOUSANDS = re.compile(r"(?<=\d)(?:,|\\,|\{,\}|\u202f|\u00a0)(?=\d{3}(?!\d))")
TRAILING_ZEROS = re.compile(r"(\d)\.0+(?!\d)|(\.\d*?[1-9])0+(?!\d)")
TOKEN = re.compile(r"\\[a-z]+|[^\W\d_]+|\d+(?:\.\d+)?|[+*/=<>^|%-]")
SYMBOLS = {
    "\\times": "*", "\\cdot": "*", "\u00d7": "*", "\u00b7": "*", "\\div": "/", "\u00f7": "/",
    "\\le": "\\leq", "\u2264": "\\leq", "\\ge": "\\geq", "\u2265": "\\geq", "\u2212": "-",
    "\\%": "%", "\u03c0": "\\pi", "\u221a": "\\sqrt",
}  # fmt: skip
"""Symbols, and the common spelling of each."""

_SYMBOL_PATTERNS = [
    (re.compile(re.escape(symbol) + r"(?![a-z])"), f" {common} ".replace("\\", r"\\"))
    for symbol, common in SYMBOLS.items()
]


@dataclass(frozen=True, slots=True)
class Match:
    """What a text shares with a question of an evaluation.

    Attributes:
        source: the file and row of the question.
        text: the shared n-gram.
    """

    source: str
    text: str


class NgramIndex:
    """The n-grams of questions, each with the first question that has it.

    A question shorter than an n-gram is one as a whole. From `MIN_CONTAINED` words on it matches
    texts that contain it, below only texts that are the same.
    """

    def __init__(self, split: Callable[[str], list[str]], length: int = LENGTH) -> None:
        self._split = split
        self._length = length
        self._sources: dict[str, str] = {}
        self._lengths = {length}

    def add(self, source: str, question: str) -> None:
        """Add a question under the name of its file and row."""
        words = self._split(question)
        if MIN_CONTAINED <= len(words) < self._length:
            self._lengths.add(len(words))
        for gram in _grams(words, self._length):
            self._sources.setdefault(gram, source)

    def find(self, text: str) -> Match | None:
        """Return the first n-gram of a text that a question has, or None."""
        words = self._split(text)
        for length in sorted(self._lengths, reverse=True):
            for gram in _grams(words, length):
                if gram in self._sources:
                    return Match(self._sources[gram], gram)
        return None


class EvaluationIndex:
    """The questions of evaluations, indexed as s1 does and by normalized LaTeX and numbers."""

    def __init__(self, questions: Iterable[tuple[str, str]], length: int = LENGTH) -> None:
        """Index questions, each with the name of its file and row.

        Args:
            questions: the names and texts.
            length: the words of an n-gram. The second pass takes half as many more tokens, as a
                formula has more of them than it has words.
        """
        self._passes = {
            "words": NgramIndex(plain_words, length),
            "normalized": NgramIndex(normalized_math, length * 3 // 2),
        }
        self.size = 0
        for source, question in questions:
            self.size += 1
            for index in self._passes.values():
                index.add(source, question)

    def find(self, text: str) -> tuple[str, Match] | None:
        """Return the name of the first pass that matches, and the match, or None."""
        found = ((name, index.find(text)) for name, index in self._passes.items())
        return next(((name, match) for name, match in found if match), None)


def _grams(words: Sequence[str], length: int) -> Iterator[str]:
    """Yield the n-grams of words; fewer words are one as a whole."""
    if words:
        for start in range(max(1, len(words) - length + 1)):
            yield " ".join(words[start : start + length])


def plain_words(text: str) -> list[str]:
    """Return what stands between whitespace, in lower case."""
    return text.lower().split()


def normalized_math(text: str) -> list[str]:
    r"""Return words, numbers and operators, alike for the spellings of a formula.

    `$\dfrac{1,000}{2.50}$` and `\frac {1000} {2.5}` are the same.
    """
    text = text.lower()
    text = THOUSANDS.sub("", text)
    text = LATEX_SPACING.sub(" ", text)
    text = LATEX_FRACTION.sub(r"\\frac ", text)
    text = LATEX_TEXT.sub(" ", text)
    for pattern, common in _SYMBOL_PATTERNS:
        text = pattern.sub(common, text)
    text = TRAILING_ZEROS.sub(lambda found: found[1] or found[2], text)
    return TOKEN.findall(text)
