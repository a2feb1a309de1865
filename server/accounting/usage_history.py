"""What recent requests of each tier have used."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

MAX_SAMPLES = 256
"""The number of requests of each tier that are kept."""


@dataclass(frozen=True, slots=True)
class UsageSample:
    """What one successful request used.

    Attributes:
        thinking: number of tokens that are not part of the answer, per choice.
        answer: number of answer tokens, per choice.
        cost: the cost of the whole request; None if there are no prices.
    """

    thinking: float
    answer: float
    cost: Decimal | None


class UsageHistory:
    """The last `MAX_SAMPLES` requests of each tier."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[UsageSample]] = {}

    def add(self, tier: str, sample: UsageSample) -> None:
        """Add a request of a tier, or of "custom" budgets."""
        self._samples.setdefault(tier, deque(maxlen=MAX_SAMPLES)).append(sample)

    def samples(self, tier: str) -> Sequence[UsageSample]:
        """Return the requests of a tier, from the oldest on."""
        return self._samples.get(tier, ())
