"""What a vocabulary tells of the tokens of a batch of slots, as arrays."""

from typing import NamedTuple

import numpy as np

from proctor.budget.loops import UNKNOWN_WEIGHT
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.vocabulary import ENDS, ENDS_AFTER_NO_DIGIT, IS_DIGIT, Vocabulary


class TokenTraits(NamedTuple):
    """What the text of each slot ends in; every array has shape [slots].

    Attributes:
        incomplete_bytes: int64; bytes that the last character still lacks.
        partial: int64; see `Vocabulary.partial`.
        ends: bool; whether a sentence or a line ends here.
        after_digit: bool; whether the text ends in a digit.
    """

    incomplete_bytes: Array
    partial: Array
    ends: Array
    after_digit: Array


class VocabularyArrays:
    """A vocabulary, by token."""

    def __init__(self, vocabulary: Vocabulary, arrays: ArrayBackend) -> None:
        # One more token, without text, stands for those that the vocabulary does not have.
        self._size = len(vocabulary.traits[0])
        self._xp, self._take = arrays.xp, arrays.take
        incomplete_bytes = np.array([[*after, 0] for after in vocabulary.incomplete_bytes])
        self._missing = arrays.bring(incomplete_bytes.flatten())
        unknown = [UNKNOWN_WEIGHT] * (self._size + 1 - len(vocabulary.weights))
        self._letters = arrays.bring([*vocabulary.weights, *unknown])
        traits, partial = vocabulary.traits, vocabulary.partial
        self._traits = arrays.bring(np.array([[*row, 0] for row in traits]).flatten())
        self._partial = arrays.bring(np.array([[*row, 0] for row in partial]).flatten())

    def known(self, token: Array) -> Array:
        """[slots] int64: the token, or a stand-in without text if the vocabulary lacks it."""
        return self._xp.where((token >= 0) & (token < self._size), token, self._size)

    def weights(self, known: Array) -> Array:
        """[slots] int64: see `Vocabulary.weights`."""
        return self._take(self._letters, known)

    def read(
        self, known: Array, incomplete_bytes: Array, partial: Array, after_digit: Array
    ) -> "TokenTraits":
        """What follows a token, by what the text before it ends in."""
        traits = self._take(self._traits, partial * (self._size + 1) + known)
        ending = self._xp.where(after_digit, ENDS, ENDS | ENDS_AFTER_NO_DIGIT)
        return TokenTraits(
            incomplete_bytes=self._take(self._missing, incomplete_bytes * (self._size + 1) + known),
            partial=self._take(self._partial, partial * (self._size + 1) + known),
            ends=(traits & ending) != 0,
            after_digit=(traits & IS_DIGIT) != 0,
        )


def unfinished(vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that can end inside a character.

    Returns:
        [columns] int64, the tokens; [4, columns] int64, the bytes lacking after
        each, by the bytes lacking before it.
    """
    incomplete_bytes = np.array([[*after] for after in vocabulary.incomplete_bytes], dtype=np.int64)
    tokens = np.flatnonzero(incomplete_bytes.any(axis=0))
    return tokens, incomplete_bytes[:, tokens]
