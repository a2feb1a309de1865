"""How fast a replica is, compared with its peers."""

from collections.abc import Sequence
from statistics import median

MIN_FIRST_TOKENS = 5
MIN_TOKENS = 20
"""How many samples a mean needs before it is compared."""

FIRST_TOKEN_FLOOR = 0.5
TOKEN_FLOOR = 0.02
"""Seconds that are never slow, whatever the peers do."""

MIN_PEERS = 2


class Mean:
    """An exponential moving average of seconds.

    Attributes:
        seconds: the average.
        samples: the number of samples so far.
    """

    __slots__ = ("_min_samples", "_smoothing", "samples", "seconds")

    def __init__(self, smoothing: float, min_samples: int) -> None:
        self._smoothing = smoothing
        self._min_samples = min_samples
        self.seconds = 0.0
        self.samples = 0

    def add(self, seconds: float) -> None:
        """Add a sample."""
        self.samples += 1
        # A plain mean at first, so that the first sample does not weigh more than others.
        self.seconds += max(self._smoothing, 1 / self.samples) * (seconds - self.seconds)

    @property
    def known(self) -> bool:
        """Whether there are enough samples."""
        return self.samples >= self._min_samples


class Pace:
    """Moving averages of a replica's times.

    Attributes:
        first_token: seconds to the first token for each 1,000 tokens of the prompt to prefill,
            and 1,000 more, which stand for what every request takes.
        token: seconds between tokens.
        updated: the time of the last sample.
    """

    def __init__(self, now: float) -> None:
        self.first_token = Mean(0.2, MIN_FIRST_TOKENS)
        self.token = Mean(0.05, MIN_TOKENS)
        self.updated = now

    def add_first_token(self, seconds: float, prefill_tokens: int, now: float) -> None:
        self.first_token.add(seconds / (1 + prefill_tokens / 1000))
        self.updated = now

    def add_tokens(self, seconds: float, count: int, now: float) -> None:
        self.token.add(seconds / count)
        self.updated = now

    def excess(self, peers: Sequence["Pace"]) -> float:
        """Return how many times slower it is than the median of its peers.

        The slower of both times counts. It is 0 where too little is known to compare.
        """
        return max(
            _excess(self.first_token, [peer.first_token for peer in peers], FIRST_TOKEN_FLOOR),
            _excess(self.token, [peer.token for peer in peers], TOKEN_FLOOR),
        )


def _excess(own: Mean, peers: Sequence[Mean], floor: float) -> float:
    known = [peer.seconds for peer in peers if peer.known]
    if not own.known or len(known) < MIN_PEERS or own.seconds < floor:
        return 0.0
    typical = median(known)
    return own.seconds / typical if typical else float("inf")
