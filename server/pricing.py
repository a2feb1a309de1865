"""What tokens cost."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from proctor.server.config.prices import Prices
from proctor.server.config.section import coalesce

MILLION = 1_000_000

NANO = Decimal("1e-9")
"""The unit in which money is counted against limits: whole numbers, which every database adds
up exactly. The ledger's rows have the exact cost."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer costs, by its parts.

    Attributes:
        currency: their unit.
        prompt: for the prompt's tokens, cached ones too.
        thinking: for generated tokens that are not the answer's, markers among them.
        answer: for the answer's tokens.
    """

    currency: str
    prompt: Decimal
    thinking: Decimal
    answer: Decimal

    @classmethod
    def of(cls, prices: Prices, prompt: int, thinking: int, answer: int, cached: int = 0) -> "Cost":
        """The cost of so many tokens, `cached` of the prompt's among them from the cache."""
        of_cached = coalesce(prices.prompt, prices.cached_prompt)
        return cls(
            prices.currency,
            ((prompt - cached) * prices.prompt + cached * of_cached) / MILLION,
            thinking * prices.thinking / MILLION,
            answer * prices.answer / MILLION,
        )

    @property
    def total(self) -> Decimal:
        """The sum of the parts."""
        return self.prompt + self.thinking + self.answer

    def to_json(self) -> dict[str, Any]:
        """As responses show it."""
        return {
            "currency": self.currency,
            "prompt": float(self.prompt),
            "thinking": float(self.thinking),
            "answer": float(self.answer),
            "total": float(self.total),
        }


def affordable(prices: Prices, prompt: int, price: Decimal) -> int | None:
    """Generated tokens that `price` pays for beside the prompt's, thinking or not.

    Returns:
        None if they cost nothing; below 0 if the prompt alone costs more.
    """
    left = price * MILLION - prompt * prices.prompt
    dearest = max(prices.thinking, prices.answer)
    if left < 0:
        return -1
    return int(left // dearest) if dearest else None


def to_nanos(money: Decimal) -> int:
    """Money in billionths, rounded up."""
    return int((money / NANO).to_integral_value(ROUND_CEILING))
