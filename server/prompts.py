"""A raw prompt and what to do with it, as a client may send it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from server.parts import MAX_NAME, Count, Flag, Int, Text
from server.schemas import STREAMING, Generation

MAX_TOKENS = 2**20
DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""

TokenId = Annotated[Count, Field(lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(max_length=MAX_TOKENS, fail_fast=True)]
One = Field(min_length=1, max_length=1)
Prompts = Text | TokenIds | Annotated[list[Text], One] | Annotated[list[TokenIds], One]
SHOWING: dict[str, Any] = {
    "properties": {"reasoning": {"properties": {"exclude": {"not": {"const": True}}}}}
}
"""What `_shows_its_thinking` checks, as JSON schema."""


def _the_only_one(value: Any) -> Any:
    """The prompt of a list of prompts."""
    if not isinstance(value, list) or not value or not isinstance(value[0], str | list):
        return value
    if len(value) > 1:
        raise PydanticCustomError("prompts", "It should be one prompt: send a request for each")
    return value[0]


class CompletionRequest(Generation):
    """The body of `POST /v1/completions`."""

    model_config = ConfigDict(json_schema_extra={"allOf": [STREAMING, SHOWING]})

    prompt: Annotated[
        Text | TokenIds, BeforeValidator(_the_only_one, json_schema_input_type=Prompts)
    ]
    """What to go on from: a text, in which special tokens may be spelled, or token ids. A list
    may hold one such prompt."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Most tokens of each choice, thinking included; 16 if unset, as OpenAI has it."""
    add_special_tokens: Flag | None = None
    """Whether to add the tokens that begin or end a text; it is so by default."""
    budget_tier: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """A tier's name. Like every budget that demands thinking, one with a minimum needs a prompt
    that ends inside a thinking block."""

    @model_validator(mode="after")
    def _shows_its_thinking(self) -> "CompletionRequest":
        if self.reasoning is not None and self.reasoning.exclude:
            reason = "cannot be had here: the text is all that was generated"
            raise PydanticCustomError(
                "field", "{reason}", {"field": "reasoning.exclude", "reason": reason}
            )
        return self
