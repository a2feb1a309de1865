"""The stage `deduplication`: of equal or nearly equal questions, the first one stays."""

import re
import unicodedata
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from pydantic import Field

from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.rows import Row
from proctor.curation.stages.base import Dropped, StageOptions

WORD = re.compile(r"\w+")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
PERMUTATION_SEED = 1


class DeduplicationOptions(StageOptions):
    """Of equal or nearly equal questions, keep the first.

    Attributes:
        threshold: the Jaccard similarity of two questions' word n-grams, as MinHash estimates
            it, from which they are near duplicates; 1 looks for exact ones only.
        ngram: the number of words of an n-gram.
        permutations: the number of hash functions: the standard error of the estimate is at
            most 0.5 / √permutations.
        same_numbers: whether near duplicates must have the same numbers. Word problems that
            differ in a number only are different problems.
    """

    threshold: float = Field(default=0.7, gt=0, le=1)
    ngram: int = Field(default=3, ge=1)
    permutations: int = Field(default=128, ge=16)
    same_numbers: bool = True

    def build(self, context: Context) -> "Deduplication":
        """Create the stage."""
        return Deduplication(self)


class Deduplication:
    """Drops each question that an earlier row has, exactly after normalization or nearly.

    In memory are, of each row that stays, a digest of its normalized question, and what MinHash
    needs, with its index: about 6 kB.
    """

    name = "deduplication"

    def __init__(self, options: DeduplicationOptions) -> None:
        self._exact: dict[bytes, str] = {}
        self._near = NearDuplicates(options) if options.threshold < 1 else None

    def judge(self, row: Row) -> Dropped | None:
        words = normalized_words(row.question)
        digest = blake2b(" ".join(words).encode(), digest_size=16).digest()
        if first := self._exact.get(digest):
            return Dropped("exact duplicate", f"of {first}")
        if self._near is not None and (found := self._near.find_or_add(row, words)):
            return Dropped("near duplicate", "of {} (similarity {:.2f})".format(*found))
        self._exact[digest] = row.id
        return None


class NearDuplicates:
    """The questions so far, by MinHash (Broder, 1997) and locality-sensitive hashing."""

    def __init__(self, options: DeduplicationOptions) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            raise CurationError(
                f"near duplicates require the extra 'curate' ({error}); threshold = 1 does not"
            ) from error
        self._options = options
        self._new: Any = MinHash(num_perm=options.permutations, seed=PERMUTATION_SEED)
        self._index: Any = MinHashLSH(threshold=options.threshold, num_perm=options.permutations)
        self._rows: list[tuple[str, Any, bytes]] = []

    def find_or_add(self, row: Row, words: list[str]) -> tuple[str, float] | None:
        """Return the most similar earlier row, the first of equals, or add this one.

        Args:
            row: the row.
            words: the words of its normalized question.

        Returns:
            The id of the earlier row and the estimated similarity, or None.
        """
        signature = self._new.copy()
        signature.update_batch([gram.encode() for gram in _ngrams(words, self._options.ngram)])
        numbers = b""
        if self._options.same_numbers:
            stated = " ".join(sorted(NUMBER.findall(row.question)))
            numbers = blake2b(stated.encode(), digest_size=8).digest()
        best: tuple[str, float] | None = None
        for position in sorted(self._index.query(signature)):
            row_id, other, other_numbers = self._rows[position]
            similarity = float(signature.jaccard(other))
            enough = similarity >= self._options.threshold and numbers == other_numbers
            if enough and (best is None or similarity > best[1]):
                best = row_id, similarity
        if best is None:
            self._index.insert(len(self._rows), signature)
            self._rows.append((row.id, signature, numbers))
        return best


def normalized_words(text: str) -> list[str]:
    """Return the words of a text in compatibility form and lower case, without punctuation."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _ngrams(words: list[str], length: int) -> Iterator[str]:
    """Yield the n-grams of a text; one that is shorter is its own."""
    for start in range(max(1, len(words) - length + 1)):
        yield " ".join(words[start : start + length])
