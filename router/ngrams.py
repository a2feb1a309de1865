"""Word and character n-grams, hashed into buckets with NumPy.

A text is bounded before it comes here, so this is a few thousand array elements.
Hashes are CRC-32 and multiplications modulo 2^32: the same on every machine.
"""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

BUCKETS = 1 << 14
_SHIFT = np.uint32(32 - 14)
_FACTOR = np.uint32(0x9E3779B1)
_SPANS = (2, 4)
"""Pairs of characters tell words of Han and kana apart, runs of four those of other scripts."""


def counts(text: str, words: list[str]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """The buckets that a text falls into, ascending, and 1 + log of how often, both of shape (n,).

    Its words are given in lower case. Which digits a number has makes no difference, nor do
    capitals.
    """
    hashes = [*_of_words(words), *_of_characters(text.lower())]
    fallen = (np.concatenate(hashes) >> _SHIFT).astype(np.uint16)
    buckets, times = np.unique(fallen, return_counts=True)
    return buckets, (1.0 + np.log(times)).astype(np.float32)


def _of_words(words: list[str]) -> list[NDArray[np.uint32]]:
    encoded = " ".join(words).encode("utf-8", "surrogatepass").split()
    hashed = np.fromiter(map(crc32, encoded), np.uint32)
    return [hashed * _FACTOR, (hashed[:-1] * np.uint32(31) + hashed[1:]) * _FACTOR]


def _of_characters(text: str) -> list[NDArray[np.uint32]]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    codes = np.where((codes > ord("0")) & (codes <= ord("9")), np.uint32(ord("0")), codes)
    hashes = []
    for span in _SPANS:
        length = max(0, len(codes) - span + 1)
        mixed = np.full(length, span, np.uint32)
        for at in range(span):
            mixed = (mixed ^ codes[at : at + length]) * np.uint32(0x01000193)
        hashes.append(mixed * _FACTOR)
    return hashes
