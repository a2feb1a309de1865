"""A raw prompt and what to do with it, as a client may send it."""

from typing import Annotated, Any, cast

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import NULL, Count, Flag, Int, Text
from proctor.server.schemas.generation import MAX_TOP_LOGPROBS, SCORED_WHOLE, STREAMING, Generation

MAX_TOKENS = 2**20
DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""

MAX_PROMPTS = 2048
"""OpenAI's."""

TokenId = Annotated[Count, Field(lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(max_length=MAX_TOKENS, fail_fast=True)]
OneText = Annotated[Text, Field(min_length=1)]
OneOfIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS, fail_fast=True)]
Several = Annotated[
    list[OneText | OneOfIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)
]
SHOWING: dict[str, Any] = {
    "properties": {"reasoning": {"properties": {"exclude": {"not": {"const": True}}}}}
}
"""What `_shows_its_thinking` checks, as JSON schema."""
GENERATING: dict[str, Any] = {
    "if": {"required": ["max_tokens"], "properties": {"max_tokens": {"const": 0}}},
    "then": {
        "anyOf": [
            {"required": ["echo"], "properties": {"echo": {"const": True}}},
            {"required": ["prompt_logprobs"], "properties": {"prompt_logprobs": {"not": NULL}}},
        ]
    },
}
"""What admission checks of a request that generates nothing, as JSON schema."""


def _kind(value: Any) -> str:
    """Which shape of prompt a value is meant to be."""
    if not isinstance(value, list):
        return "text"
    return "several" if value and isinstance(value[0], str | list) else "ids"


class CompletionRequest(Generation):
    """The body of `POST /v1/completions`."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [STREAMING, SHOWING, GENERATING, SCORED_WHOLE]}
    )

    prompt: Annotated[
        Annotated[OneText, Tag("text")]
        | Annotated[OneOfIds, Tag("ids")]
        | Annotated[Several, Tag("several")],
        Discriminator(_kind),
    ]
    """What to go on from: a text, in which special tokens may be spelled, or token ids. Or a list
    of such prompts, each with `n` choices of its own."""
    max_tokens: Annotated[Int, Field(ge=0)] | None = None
    """Most tokens of each choice, thinking included. If unset it is 16, as OpenAI has it, or for a
    prompt that ends inside a thinking block what the context leaves. 0 generates nothing, and
    needs `echo` or `prompt_logprobs`."""
    echo: Flag | None = None
    """Whether to begin each text with its prompt, which `logprobs` is of then, too."""
    logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """How many of the likeliest tokens to tell at each position, beside the token that came: log
    probabilities as the model found them before temperature, masks and penalties."""
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

    @property
    def requested_logprobs(self) -> int | None:
        """See `Generation`."""
        return self.logprobs

    @property
    def requested_prompt_logprobs(self) -> int | None:
        """See `Generation`. The prompt that is echoed has them too."""
        asked = [self.prompt_logprobs, self.logprobs if self.echo else None]
        return max((each for each in asked if each is not None), default=None)

    @property
    def prompts(self) -> list[tuple[str, str | list[int]]]:
        """Each prompt, after the path of the field that it is."""
        if _kind(self.prompt) != "several":
            return [("prompt", cast(str | list[int], self.prompt))]
        return [
            (f"prompt[{at}]", cast(str | list[int], each)) for at, each in enumerate(self.prompt)
        ]
