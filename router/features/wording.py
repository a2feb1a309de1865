"""Words and pairs of words, hashed with their numbers, for models of one server's own traffic.

The n-grams of the difficulty model treat all digits alike, so that it generalizes to other sources.
What a model gets wrong is often a matter of the very number ("times 7"), so these features keep it.
"""

import re
from zlib import crc32

import numpy as np

from proctor.router.model import Floats

WIDTH = 1 << 10
_SHIFT = np.uint32(32 - 10)
_SIGN_BIT = np.uint32(3)
_FACTOR = np.uint32(0x9E3779B1)
_TOKEN = re.compile(r"\d+|[^\W\d_]+|[^\w\s]")


def hashed_words(text: str) -> Floats:
    """Return log(1 + frequency) of words and pairs of words, of shape (WIDTH,), float32.

    Each is added to one of `WIDTH` places with a sign of its own, so that collisions cancel out on
    average. Case is ignored; the hashes are the same on every machine.

    Args:
        text: the text, bounded by the caller.
    """
    encoded = [token.encode("utf-8", "surrogatepass") for token in _TOKEN.findall(text.lower())]
    words = np.fromiter(map(crc32, encoded), np.uint32, len(encoded))
    pairs = words[:-1] * np.uint32(31) + words[1:]
    hashes, frequency = np.unique(np.concatenate([words, pairs]) * _FACTOR, return_counts=True)
    signs = np.where(hashes >> _SIGN_BIT & 1, 1.0, -1.0)
    values = np.bincount(hashes >> _SHIFT, signs * np.log1p(frequency), WIDTH)
    return values.astype(np.float32)
