"""How many tokens a request still generates, learned from requests with the same budget."""

from collections import OrderedDict
from collections.abc import Hashable

FORGET = 0.98
"""The weight of all earlier requests when another one ends: about 50 of them count."""

MAX_KEYS = 4096


class UsageEstimates:
    """Histograms of the tokens that requests generated, by budget.

    The first entry of each is the request's limit: an unknown budget is expected to be used up,
    until requests show otherwise.
    """

    def __init__(self) -> None:
        self._histograms: OrderedDict[Hashable, _Histogram] = OrderedDict()

    def remaining(self, key: Hashable, limit: int, generated: int = 0) -> float:
        """Return the expected number of tokens that a request still generates.

        Args:
            key: the budget.
            limit: the maximum number of tokens that the request can generate.
            generated: how many it has generated so far.
        """
        histogram = self._histogram(key, limit)
        mean = histogram.mean_beyond(generated)
        return max(0.0, min(limit if mean is None else mean, limit) - generated)

    def learn(self, key: Hashable, limit: int, generated: int) -> None:
        """Record what a request generated that was not aborted."""
        self._histogram(key, limit).add(generated)

    def _histogram(self, key: Hashable, limit: int) -> "_Histogram":
        histogram = self._histograms.get(key)
        if histogram is None:
            histogram = self._histograms[key] = _Histogram()
            histogram.add(limit)
            if len(self._histograms) > MAX_KEYS:
                self._histograms.popitem(last=False)
        else:
            self._histograms.move_to_end(key)
        return histogram


class _Histogram:
    """Weights and sums of numbers of tokens, in buckets of quarter powers of two."""

    def __init__(self) -> None:
        self._buckets: dict[int, tuple[float, float]] = {}
        self._scale = 1.0

    def add(self, tokens: int) -> None:
        # Instead of shrinking all earlier weights, later ones grow.
        self._scale /= FORGET
        if self._scale > 1e9:
            self._buckets = {
                bucket: (weight / self._scale, total / self._scale)
                for bucket, (weight, total) in self._buckets.items()
            }
            self._scale = 1.0
        bucket = bucket_of(tokens)
        weight, total = self._buckets.get(bucket, (0.0, 0.0))
        self._buckets[bucket] = (weight + self._scale, total + self._scale * tokens)

    def mean_beyond(self, tokens: int) -> float | None:
        """Return the mean of the numbers in higher buckets than `tokens`, None without any.

        With 0 it is the mean of all numbers.
        """
        first = bucket_of(tokens) if tokens else -1
        weights = totals = 0.0
        for bucket, (weight, total) in self._buckets.items():
            if bucket > first:
                weights += weight
                totals += total
        return totals / weights if weights else None


def bucket_of(tokens: int) -> int:
    """Return the bucket of a number of tokens: four for each power of two."""
    if tokens < 4:
        return tokens
    exponent = tokens.bit_length() - 3
    return 4 * exponent + (tokens >> exponent)
