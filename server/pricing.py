"""Costs, computed from token counts and prices."""

from dataclasses import dataclass
from decimal import Decimal

from proctor.server.config.prices import Prices
from proctor.server.config.section import coalesce

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a request.

    Attributes:
        currency: the currency of the amounts.
        prompt: the cost of the prompt's tokens, cached ones included.
        thinking: the cost of generated tokens outside the answer, markers included.
        answer: the cost of the answer's tokens.
    """

    currency: str
    prompt: Decimal
    thinking: Decimal
    answer: Decimal

    @classmethod
    def of(cls, prices: Prices, prompt: int, thinking: int, answer: int, cached: int = 0) -> "Cost":
        """Return the cost of these numbers of tokens.

        Args:
            prices: the prices per million tokens.
            prompt: the number of tokens in the prompt, cached ones included.
            thinking: the number of generated tokens outside the answer.
            answer: the number of tokens in the answer.
            cached: the number of prompt tokens read from the cache.
        """
        cached_price = coalesce(prices.prompt, prices.cached_prompt)
        return cls(
            prices.currency,
            ((prompt - cached) * prices.prompt + cached * cached_price) / MILLION,
            thinking * prices.thinking / MILLION,
            answer * prices.answer / MILLION,
        )

    @property
    def total(self) -> Decimal:
        """The sum of the amounts."""
        return self.prompt + self.thinking + self.answer


def affordable(prices: Prices, prompt: int, price: Decimal) -> int | None:
    """Return the number of tokens that can be generated, thinking or not, for a price.

    Args:
        prices: the prices per million tokens.
        prompt: the number of tokens in the prompt, which is paid from the same price.
        price: the price of prompt and completion together.

    Returns:
        None if generated tokens are free, and -1 if the prompt alone costs more.
    """
    remaining = price * MILLION - prompt * prices.prompt
    highest_price = max(prices.thinking, prices.answer)
    if remaining < 0:
        return -1
    return int(remaining // highest_price) if highest_price else None
