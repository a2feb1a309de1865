"""Questions as vectors of words, weighted by how rare they are (TF-IDF)."""

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"[^\W\d_]{3,}")
"""At least three letters: numbers and names of variables say little about the subject."""

MOST_WORDS = 4096
MAX_SHARE = 0.5
"""Words that a larger share of the questions has tell nothing apart."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of length 1, or 0 where a question has no known word; only what is not 0 is stored.

    Attributes:
        words: the word of each dimension.
        rows: the question of each stored value, ascending.
        columns: its dimension.
        values: the values.
        count: the number of questions.
    """

    words: Sequence[str]
    rows: Ints
    columns: Ints
    values: Floats
    count: int

    def similarity(self, center: Floats) -> Floats:
        """Return the dot product of each question with a vector, shape (count,)."""
        return _sums(self.rows, self.values * center[self.columns], self.count)

    def sums(self, groups: Ints, group_count: int) -> Floats:
        """Return the sum of the vectors of each group of questions, shape (groups, words)."""
        cells = groups[self.rows] * len(self.words) + self.columns
        flat = _sums(cells, self.values, group_count * len(self.words))
        return flat.reshape(group_count, len(self.words))


def vectorize(questions: Sequence[str]) -> Vectors:
    """Return the questions' vectors.

    The dimensions are the words that most questions have, of those that at least two and at most
    half of the questions have. A word that a question has n times counts 1 + ln n.
    """
    frequency = _frequency(questions)
    rows, columns, times = _occurrences(questions, [*frequency])
    shares = np.array([*frequency.values()], np.float64) / max(1, len(questions))
    values = (1 + np.log(times)) * (1 - np.log(shares))[columns]
    norms = np.sqrt(_sums(rows, values**2, len(questions)))
    return Vectors([*frequency], rows, columns, values / norms[rows], len(questions))


def _frequency(questions: Sequence[str]) -> dict[str, int]:
    """Return how many questions have each word of the dimensions, in the order of these."""
    frequency = Counter(word for question in questions for word in set(_words(question)))
    most = max(2, MAX_SHARE * len(questions))
    known = [(-times, word) for word, times in frequency.items() if 2 <= times <= most]
    return {word: -times for times, word in sorted(known)[:MOST_WORDS]}


def _occurrences(questions: Sequence[str], words: Sequence[str]) -> tuple[Ints, Ints, Ints]:
    """Return the question, the word and the number of each word in each question."""
    index = {word: column for column, word in enumerate(words)}
    # Arrays: as tuples, the words of tens of thousands of questions would fill gigabytes.
    rows, columns, times = array("q"), array("q"), array("q")
    for row, question in enumerate(questions):
        counts = Counter(index[word] for word in _words(question) if word in index)
        rows.extend([row] * len(counts))
        columns.extend(counts.keys())
        times.extend(counts.values())
    return np.array(rows), np.array(columns), np.array(times)


def _words(question: str) -> list[str]:
    return WORD.findall(question.lower())


def _sums(places: Ints, values: Floats, size: int) -> Floats:
    """Return the sum of the values at each place, shape (size,)."""
    return np.bincount(places, values, size).astype(np.float64, copy=False)
