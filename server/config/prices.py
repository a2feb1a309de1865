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
    """Prices of the model's tokens, per million.

    Attributes:
        currency: their unit.
        prompt: of a prompt's tokens.
        cached_prompt: of those that the engine had in its cache; None is the same price.
        thinking: of generated tokens that are not the answer's.
        answer: of the answer's.
    """

    currency: Currency = "USD"
    prompt: Million
    cached_prompt: Million | None = None
    thinking: Million
    answer: Million

    @model_validator(mode="after")
    def _cache_is_no_dearer(self) -> "Prices":
        if self.cached_prompt is not None and self.cached_prompt > self.prompt:
            raise ValueError("cached_prompt can be no dearer than prompt")
        return self


class ComputePrice(Section):
    """The price of the machine that the model runs on, in the place of prices of tokens.

    Attributes:
        currency: its unit.
        per_hour: of all its GPUs together, for an hour in which they are busy.
    """

    currency: Currency = "USD"
    per_hour: Annotated[Decimal, Field(ge=0)]
