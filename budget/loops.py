"""Loops: a thinking that repeats itself, word for word or nearly.

Two signs, both read off the tokens alone. `runs` is what they share: for every
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

from collections import deque

REACH = 256
COPIES = 4
COVERED = 64
COVERED_WITHOUT_WORDS = 256
SURPRISE = 22
ENOUGH = 256
UNKNOWN_LETTERS = 1
_SHORTEST_RUN = COVERED - COVERED // COPIES  # all copies but one


class LoopDetector:
    """Takes a thinking token by token.

    Attributes:
        length: tokens taken.
        recent: the last `REACH` of them.
        runs: by distance, how many tokens in a row equalled the one so far
            back; distances with none are left out.
        phrase: tokens of the phrase that has begun.
        score: 0 to `ENOUGH`.
        wordless: how many tokens in a row had no letters.
    """

    def __init__(self, letters: bytes = b"") -> None:
        """`letters` is a `Vocabulary`'s; tokens outside it count as one letter."""
        self._letters = letters
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.length = 0
        self.recent: deque[int] = deque(maxlen=REACH)
        self.runs: dict[int, int] = {}
        self.phrase = 0
        self.score = 0
        self.wordless = 0
        self._places: dict[int, deque[int]] = {}

    def advance(self, token: int) -> bool:
        """Take the next token; whether those so far end in a loop."""
        letters = self._letters[token] if token < len(self._letters) else UNKNOWN_LETTERS
        self.wordless = 0 if letters else self.wordless + 1
        self.runs = {distance: self.runs.get(distance, 0) + 1 for distance in self._find(token)}
        self.recent.append(token)
        copies = sum(map(self.phrase.__lt__, self.runs.values()))
        if copies:
            self.phrase += 1
            self.score = min(ENOUGH, self.score + (max(1, letters) if copies > 1 else 1))
        else:
            self.phrase = 0
            self.score = max(0, self.score - SURPRISE)
        return self.score == ENOUGH or self._is_exact

    @property
    def _is_exact(self) -> bool:
        if max(self.runs.values(), default=0) < _SHORTEST_RUN:
            return False
        least = COVERED if self.wordless < COVERED else COVERED_WITHOUT_WORDS
        return any(run + period >= max(COPIES * period, least) for period, run in self.runs.items())

    def _find(self, token: int) -> list[int]:
        """The distances at which the token stands among the last `REACH`; then it joins them."""
        places = self._places.setdefault(token, deque())
        while places and places[0] < self.length - REACH:
            places.popleft()
        distances = [self.length - place for place in places]
        places.append(self.length)
        self.length += 1
        return distances
