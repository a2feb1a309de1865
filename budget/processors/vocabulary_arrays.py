"""The vocabulary as arrays, for a batch of slots."""

from typing import NamedTuple

import numpy as np

from proctor.budget.loops import UNKNOWN_WEIGHT
from proctor.budget.processors.backend import Array, ArrayBackend
from proctor.budget.vocabulary import ENDS, ENDS_AFTER_NO_DIGIT, IS_DIGIT, Vocabulary


class TextTraits(NamedTuple):
    """The traits of the end of each slot's text; every array has shape [slots].

    Attributes:
        incomplete_bytes: int64; bytes missing from the last character, 0 to 3.
        partial: int64; see `Vocabulary.partial`.
        ends: bool; whether the last token ends a sentence or line.
        after_digit: bool; whether the text ends in a digit.
    """

    incomplete_bytes: Array
    partial: Array
    ends: Array
    after_digit: Array


class VocabularyArrays:
    """The arrays of a `Vocabulary`, indexed by token."""

    def __init__(self, vocabulary: Vocabulary, arrays: ArrayBackend) -> None:
        # One additional token, without a text, represents all unknown ones.
        self._size = len(vocabulary.traits[0])
        self._xp, self._take = arrays.xp, arrays.take
        incomplete_bytes = np.array([[*after, 0] for after in vocabulary.incomplete_bytes])
        self._incomplete_bytes = arrays.as_int64(incomplete_bytes.flatten())
        unknown = [UNKNOWN_WEIGHT] * (self._size + 1 - len(vocabulary.weights))
        self._weights = arrays.as_int64([*vocabulary.weights, *unknown])
        traits = np.array([[*row, 0] for row in vocabulary.traits])
        partial = np.array([[*row, 0] for row in vocabulary.partial])
        self._traits = arrays.as_int64(traits.flatten())
        self._partial = arrays.as_int64(partial.flatten())

    def index(self, token: Array) -> Array:
        """Return the index of each token in the vocabulary's arrays.

        Args:
            token: [slots] int64.

        Returns:
            [slots] int64; for a token that the vocabulary lacks, one without a text.
        """
        return self._xp.where((token >= 0) & (token < self._size), token, self._size)

    def weights(self, index: Array) -> Array:
        """Return `Vocabulary.weights` of indices, [slots] int64, as [slots] int64."""
        return self._take(self._weights, index)

    def traits(
        self, index: Array, incomplete_bytes: Array, partial: Array, after_digit: Array
    ) -> TextTraits:
        """Return the traits of each slot's text after a token.

        Args:
            index: [slots] int64; the token's `index`.
            incomplete_bytes: [slots] int64; the traits of the text before the token.
            partial: [slots] int64.
            after_digit: [slots] bool.
        """
        traits = self._take(self._traits, partial * (self._size + 1) + index)
        ends = self._xp.where(after_digit, ENDS, ENDS | ENDS_AFTER_NO_DIGIT)
        return TextTraits(
            incomplete_bytes=self._take(
                self._incomplete_bytes, incomplete_bytes * (self._size + 1) + index
            ),
            partial=self._take(self._partial, partial * (self._size + 1) + index),
            ends=(traits & ends) != 0,
            after_digit=(traits & IS_DIGIT) != 0,
        )


def incomplete_tokens(vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens that can end inside a character.

    Returns:
        The n tokens, [n] int64, and the bytes missing after each by the bytes missing
        before it, [4, n] int64.
    """
    incomplete_bytes = np.array([[*after] for after in vocabulary.incomplete_bytes], dtype=np.int64)
    tokens = np.flatnonzero(incomplete_bytes.any(axis=0))
    return tokens, incomplete_bytes[:, tokens]
