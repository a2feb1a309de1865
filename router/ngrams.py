"""Word and character n-grams, hashed into buckets with NumPy.

A text is bounded before it comes here, so this is a few thousand array elements.
Hashes are CRC-32 and multiplications modulo 2^32: the same on every machine.
"""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.lexicon import WORD

BUCKETS = 1 << 14
_SHIFT = np.uint32(32 - 14)
_FACTOR = np.uint32(0x9E3779B1)
_SPANS = (2, 4)
"""Pairs of characters tell words of Han and kana apart, runs of four those of other scripts."""

_DIGITS = str.maketrans(dict.fromkeys("123456789", "0"))


def counts(text: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The buckets that a text falls into, ascending, and 1 + log of how often, both of shape (n,).

    Which digits a number has makes no difference, nor do capitals.
    """
    plain = text.lower().translate(_DIGITS)
    hashes = [*_of_words(plain), *_of_characters(plain)]
    found = np.bincount(np.concatenate(hashes) >> _SHIFT, minlength=BUCKETS)
    buckets = np.flatnonzero(found)
    return buckets, (1.0 + np.log(found[buckets])).astype(np.float32)


def _of_words(text: str) -> list[NDArray[np.uint32]]:
    hashed = [crc32(word.encode("utf-8", "surrogatepass")) for word in WORD.findall(text)]
    words = np.array(hashed, np.uint32)
    return [words * _FACTOR, (words[:-1] * np.uint32(31) + words[1:]) * _FACTOR]


def _of_characters(text: str) -> list[NDArray[np.uint32]]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    hashes = []
    for span in _SPANS:
        length = max(0, len(codes) - span + 1)
        mixed = np.full(length, span, np.uint32)
        for at in range(span):
            mixed = (mixed ^ codes[at : at + length]) * np.uint32(0x01000193)
        hashes.append(mixed * _FACTOR)
    return hashes
