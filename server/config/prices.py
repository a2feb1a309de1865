"""Settings of prices."""

from decimal import Decimal
from typing import Annotated

from pydantic import (
    Field,
    model_validator,
)

from proctor.server.config.section import Section

Million = Annotated[Decimal, Field(ge=0)]


Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]


class Prices(Section):
    """Prices per million tokens.

    Attributes:
        currency: the currency, as an ISO 4217 code.
        prompt: the price of the prompt's tokens.
        cached_prompt: the price of prompt tokens read from the engine's cache; defaults
            to `prompt`.
        thinking: the price of generated tokens outside the answer.
        answer: the price of the answer's tokens.
    """

    currency: Currency = "USD"
    prompt: Million
    cached_prompt: Million | None = None
    thinking: Million
    answer: Million

    @model_validator(mode="after")
    def _cache_is_not_more_expensive(self) -> "Prices":
        if self.cached_prompt is not None and self.cached_prompt > self.prompt:
            raise ValueError("cached_prompt must not exceed prompt")
        return self


class ComputePrice(Section):
    """The price of compute time, instead of prices of tokens.

    Attributes:
        currency: the currency, as an ISO 4217 code.
        per_hour: the price of an hour in which the engine is busy, for all GPUs together.
    """

    currency: Currency = "USD"
    per_hour: Annotated[Decimal, Field(ge=0)]
