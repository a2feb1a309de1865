"""The usage of recent requests of each tier."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

MAX_SAMPLES = 256
"""The number of samples that are kept for each tier."""


@dataclass(frozen=True, slots=True)
class UsageSample:
    """The usage of one successful request.

    Attributes:
        thinking: the number of tokens outside the answer, per choice.
        answer: the number of answer tokens, per choice.
        cost: the cost of the whole request, or None if there are no prices.
    """

    thinking: float
    answer: float
    cost: Decimal | None


class UsageHistory:
    """The last `MAX_SAMPLES` requests of each tier of each model."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str], deque[UsageSample]] = {}

    def add(self, model: str, tier: str, sample: UsageSample) -> None:
        """Add a request that a model has served, of a tier or of "custom" budgets."""
        self._samples.setdefault((model, tier), deque(maxlen=MAX_SAMPLES)).append(sample)

    def samples(self, model: str, tier: str) -> Sequence[UsageSample]:
        """Return the samples of a model and a tier, oldest first."""
        return self._samples.get((model, tier), ())
