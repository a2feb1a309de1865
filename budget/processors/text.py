"""What a vocabulary tells of the tokens of a batch of slots, as arrays."""

import numpy as np

from budget.loops import UNKNOWN_LETTERS
from budget.processors.arrays import Array, Arrays
from budget.vocabulary import ENDS, ENDS_AFTER_NO_DIGIT, IS_DIGIT, Vocabulary


class Text:
    """A vocabulary, by token."""

    def __init__(self, vocabulary: Vocabulary, arrays: Arrays) -> None:
        # One more token, without text, stands for those that the vocabulary does not have.
        self._size = len(vocabulary.traits)
        self._xp, self._take = arrays.xp, arrays.take
        missing = np.array([[*after, 0] for after in vocabulary.missing])
        self._missing = arrays.bring(missing.flatten())
        unknown = [UNKNOWN_LETTERS] * (self._size + 1 - len(vocabulary.letters))
        self._letters = arrays.bring([*vocabulary.letters, *unknown])
        self._traits = arrays.bring([*vocabulary.traits, 0])

    def known(self, token: Array) -> Array:
        """[slots] int64: the token, or a stand-in without text if the vocabulary lacks it."""
        return self._xp.where((token >= 0) & (token < self._size), token, self._size)

    def letters(self, known: Array) -> Array:
        """[slots] int64: see `Vocabulary.letters`."""
        return self._take(self._letters, known)

    def read(self, known: Array, missing: Array, after_digit: Array) -> tuple[Array, Array, Array]:
        """What follows a token, each [slots]: bytes missing, end of sentence, digit."""
        lacking = self._take(self._missing, missing * (self._size + 1) + known)
        traits = self._take(self._traits, known)
        ending = self._xp.where(after_digit, ENDS, ENDS | ENDS_AFTER_NO_DIGIT)
        return lacking, (traits & ending) != 0, (traits & IS_DIGIT) != 0


def unfinished(vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that can end inside a character.

    Returns:
        [columns] int64, the tokens; [4, columns] int64, the bytes lacking after
        each, by the bytes lacking before it.
    """
    missing = np.array([[*after] for after in vocabulary.missing], dtype=np.int64)
    tokens = np.flatnonzero(missing.any(axis=0))
    return tokens, missing[:, tokens]
