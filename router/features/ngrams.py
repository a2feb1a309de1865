"""Word and character n-grams, hashed into buckets with NumPy.

The text is bounded by the caller, so the arrays have a few thousand elements.
The hashes, CRC-32 and multiplication modulo 2^32, are the same on every machine.
"""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

BUCKETS = 1 << 14
_SHIFT = np.uint32(32 - 14)
_FACTOR = np.uint32(0x9E3779B1)
_CHARACTER_NGRAMS = (2, 4)
"""Bigrams distinguish words of Han and kana, 4-grams those of other scripts."""


def counts(text: str, words: list[str]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return the buckets that occur, ascending, and 1 + log of their frequency, both (n,).

    Case is ignored, and so is the difference between digits.

    Args:
        text: the text.
        words: its words in lower case.
    """
    hashes = [*_word_hashes(words), *_character_hashes(text.lower())]
    hashed = (np.concatenate(hashes) >> _SHIFT).astype(np.uint16)
    buckets, frequency = np.unique(hashed, return_counts=True)
    return buckets, (1.0 + np.log(frequency)).astype(np.float32)


def _word_hashes(words: list[str]) -> list[NDArray[np.uint32]]:
    encoded = " ".join(words).encode("utf-8", "surrogatepass").split()
    hashed = np.fromiter(map(crc32, encoded), np.uint32)
    return [hashed * _FACTOR, (hashed[:-1] * np.uint32(31) + hashed[1:]) * _FACTOR]


def _character_hashes(text: str) -> list[NDArray[np.uint32]]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    codes = np.where((codes > ord("0")) & (codes <= ord("9")), np.uint32(ord("0")), codes)
    hashes = []
    for size in _CHARACTER_NGRAMS:
        length = max(0, len(codes) - size + 1)
        mixed = np.full(length, size, np.uint32)
        for offset in range(size):
            mixed = (mixed ^ codes[offset : offset + length]) * np.uint32(0x01000193)
        hashes.append(mixed * _FACTOR)
    return hashes
