"""Loops: a thinking that repeats itself, word for word or nearly.

Two signs, both read off the tokens alone. A run is what they share: for every
distance up to `REACH`, how many tokens in a row have equalled the one so far
back.

*Exact.* The tail is at least `COPIES` copies of something of 1 to `REACH`
tokens, and at least `COVERED` tokens long; `COVERED_WITHOUT_WORDS` if its last
`COVERED` tokens hold no letter, as in table rules and rows of zeros.

*Inexact*, for the same thought with a changing number. The tokens are parsed
into phrases as by LZ77 (Ziv and Lempel, A universal algorithm for sequential
data compression, 1977): each is the longest that has been said within the last
`REACH` tokens, and a last token that is new there. A score in the manner of
Page's cumulative sum (Continuous inspection schemes, 1954) rises with what is
repeated, falls by `SURPRISE` at the end of a phrase, and is a loop at
`ENOUGH`. What was said once before counts one per token, so a text that is said
twice cannot be a loop; from the third time on a token counts by its letters,
so that words weigh more than the digits and bars of a table.

How the numbers were chosen, and what they find and miss, stands in
`docs/decisions/0005-loops.md`.
"""

from collections.abc import Iterator

REACH = 256
COPIES = 4
COVERED = 64
COVERED_WITHOUT_WORDS = 256
SURPRISE = 22
ENOUGH = 256
UNKNOWN_LETTERS = 1
_SHORTEST_RUN = COVERED - COVERED // COPIES  # all copies but one
_BLOCK = _SHORTEST_RUN // 3
_ALL = (1 << REACH) - 1


class LoopDetector:
    """Takes a thinking token by token.

    Sets of distances are integers, bit d - 1 for the distance d, so that a
    token costs a few operations whatever the text: the bit-parallel search of
    Baeza-Yates and Gonnet (A new approach to text searching, 1992).

    Attributes:
        tokens: those taken.
        phrase: tokens of the phrase that has begun.
        score: 0 to `ENOUGH`.
        wordless: how many tokens in a row had no letters.
    """

    def __init__(self, weights: bytes = b"") -> None:
        """`weights` is a `Vocabulary`'s; tokens outside it count as one letter."""
        self._letters = weights
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.tokens: list[int] = []
        self.phrase = 0
        self.score = 0
        self.wordless = 0
        # By token, where it stands as seen from one position, and that position.
        self._places: dict[int, tuple[int, int]] = {}
        # The distances at which all of some stretch has been said before: of
        # the phrase, of the last whole block of tokens, and of the one begun.
        self._said = 0
        self._last_block = 0
        self._block = _ALL
        self._lasting: dict[int, int] = {}

    def advance(self, token: int) -> bool:
        """Take the next token; whether those so far end in a loop."""
        weights = self._letters[token] if token < len(self._letters) else UNKNOWN_LETTERS
        self.wordless = 0 if weights else self.wordless + 1
        distances = self._find(token)
        self._said = distances & self._said if self.phrase else distances
        copies = self._said.bit_count()
        if copies:
            self.phrase += 1
            self.score = min(ENOUGH, self.score + (max(1, weights) if copies > 1 else 1))
        else:
            self.phrase = 0
            self.score = max(0, self.score - SURPRISE)
        self._follow(distances)
        return self.score == ENOUGH or self._is_exact

    def runs(self) -> dict[int, int]:
        """By distance, how many tokens in a row equalled the one so far back, if any did."""
        distances = range(1, min(REACH, len(self.tokens) - 1) + 1)
        return {distance: run for distance in distances if (run := self._run(distance))}

    @property
    def _is_exact(self) -> bool:
        least = COVERED if self.wordless < COVERED else COVERED_WITHOUT_WORDS
        return any(
            run + period >= max(COPIES * period, least) for period, run in self._lasting.items()
        )

    def _find(self, token: int) -> int:
        """The distances at which the token stands among the last `REACH`; then it joins them."""
        here = len(self.tokens)
        places, seen_from = self._places.get(token, (0, here))
        distances = (places << min(here - seen_from, REACH)) & _ALL
        self._places[token] = distances << 1 | 1, here + 1
        self.tokens.append(token)
        return distances

    def _follow(self, distances: int) -> None:
        """Keep the runs that a loop could end in: those of a whole block and more."""
        self._block &= distances
        lasting = self._last_block & self._block
        if lasting or self._lasting:
            before = self._lasting
            self._lasting = {
                distance: before[distance] + 1 if distance in before else self._run(distance)
                for distance in _members(lasting)
            }
        if len(self.tokens) % _BLOCK == 0:
            self._last_block, self._block = self._block, _ALL

    def _run(self, distance: int) -> int:
        tokens = self.tokens
        at = len(tokens)
        while at > distance and tokens[at - 1] == tokens[at - 1 - distance]:
            at -= 1
        return len(tokens) - at


def _members(distances: int) -> Iterator[int]:
    while distances:
        lowest = distances & -distances
        yield lowest.bit_length()
        distances ^= lowest
