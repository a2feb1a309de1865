"""Detects loops: thinking that repeats itself, exactly or nearly.

Two criteria use the token ids alone. Both are based on runs: for every distance
up to `WINDOW`, the number of consecutive tokens that equal the token that far back.

*Exact.* The tail consists of at least `MIN_COPIES` copies of 1 to `WINDOW` tokens,
and is at least `MIN_LENGTH` tokens long, or `MIN_LENGTH_WITHOUT_WORDS` if its last
`MIN_LENGTH` tokens have no letters, as in table rules and rows of zeros.

*Inexact*, for the same thought with a changing number. The tokens are parsed into
phrases as in LZ77 (Ziv and Lempel, A universal algorithm for sequential data
compression, 1977): each is the longest match within the last `WINDOW` tokens,
followed by a token that does not match. A score as in Page's cumulative sum
(Continuous inspection schemes, 1954) rises with repeated tokens, falls by
`PHRASE_PENALTY` at the end of a phrase, and indicates a loop at `THRESHOLD`. A
first repetition counts one per token, so a text that occurs twice cannot be a
loop; from the third occurrence on, a token counts by its letters, so that words
weigh more than the digits and bars of a table.

`docs/decisions/0005-loops.md` describes how the constants were chosen, and what
they detect and miss.
"""

from collections.abc import Iterator

WINDOW = 256
MIN_COPIES = 4
MIN_LENGTH = 64
MIN_LENGTH_WITHOUT_WORDS = 256
PHRASE_PENALTY = 22
THRESHOLD = 256
UNKNOWN_WEIGHT = 1
_SHORTEST_RUN = MIN_LENGTH - MIN_LENGTH // MIN_COPIES  # all copies but one
_BLOCK = _SHORTEST_RUN // 3
_ALL = (1 << WINDOW) - 1


class LoopDetector:
    """Detects a loop in a sequence of tokens, one token at a time.

    Sets of distances are integers, with bit d - 1 for the distance d, so that a
    token costs a few operations whatever the text: the bit-parallel search of
    Baeza-Yates and Gonnet (A new approach to text searching, 1992).

    Attributes:
        tokens: the tokens so far.
        phrase: the number of tokens in the current phrase.
        score: the cumulative sum, 0 to `THRESHOLD`.
        wordless: the number of consecutive tokens without letters.
    """

    def __init__(self, weights: bytes = b"") -> None:
        """Create a detector.

        Args:
            weights: `Vocabulary.weights`; tokens beyond it have `UNKNOWN_WEIGHT`.
        """
        self._weights = weights
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.tokens: list[int] = []
        self.phrase = 0
        self.score = 0
        self.wordless = 0
        # By token: its distances as of some position, and that position.
        self._distances: dict[int, tuple[int, int]] = {}
        # The distances at which a whole range of tokens repeats: the current
        # phrase, the last complete block of tokens, and the current block.
        self._phrase_distances = 0
        self._last_block = 0
        self._block = _ALL
        # By distance: the length of its run, for runs that span a block.
        self._long_runs: dict[int, int] = {}

    def advance(self, token: int) -> bool:
        """Take the next token; return whether the tokens so far end in a loop."""
        weight = self._weights[token] if token < len(self._weights) else UNKNOWN_WEIGHT
        self.wordless = 0 if weight else self.wordless + 1
        distances = self._append(token)
        self._phrase_distances = distances & self._phrase_distances if self.phrase else distances
        copies = self._phrase_distances.bit_count()
        if copies:
            self.phrase += 1
            self.score = min(THRESHOLD, self.score + (max(1, weight) if copies > 1 else 1))
        else:
            self.phrase = 0
            self.score = max(0, self.score - PHRASE_PENALTY)
        self._update_runs(distances)
        return self.score == THRESHOLD or self._is_exact

    def runs(self) -> dict[int, int]:
        """Return the length of each nonempty run by distance."""
        distances = range(1, min(WINDOW, len(self.tokens) - 1) + 1)
        return {distance: run for distance in distances if (run := self._run(distance))}

    @property
    def _is_exact(self) -> bool:
        if not self._long_runs:
            return False
        minimum = MIN_LENGTH if self.wordless < MIN_LENGTH else MIN_LENGTH_WITHOUT_WORDS
        return any(
            run + period >= max(MIN_COPIES * period, minimum)
            for period, run in self._long_runs.items()
        )

    def _append(self, token: int) -> int:
        """Append a token; return the distances at which it occurs in the last `WINDOW` tokens."""
        position = len(self.tokens)
        earlier, as_of = self._distances.get(token, (0, position))
        distances = (earlier << min(position - as_of, WINDOW)) & _ALL
        self._distances[token] = distances << 1 | 1, position + 1
        self.tokens.append(token)
        return distances

    def _update_runs(self, distances: int) -> None:
        """Track the runs that may be exact loops: those of a whole block or more."""
        self._block &= distances
        spanning = self._last_block & self._block
        if spanning or self._long_runs:
            runs = self._long_runs
            self._long_runs = {
                distance: runs[distance] + 1 if distance in runs else self._run(distance)
                for distance in _members(spanning)
            }
        if len(self.tokens) % _BLOCK == 0:
            self._last_block, self._block = self._block, _ALL

    def _run(self, distance: int) -> int:
        tokens = self.tokens
        start = len(tokens)
        while start > distance and tokens[start - 1] == tokens[start - 1 - distance]:
            start -= 1
        return len(tokens) - start


def _members(distances: int) -> Iterator[int]:
    while distances:
        lowest = distances & -distances
        yield lowest.bit_length()
        distances ^= lowest
