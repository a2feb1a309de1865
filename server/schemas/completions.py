"""The request model of completions of raw prompts."""

from typing import Annotated, Any, cast

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import NULL, Count, Flag, Int, Text
from proctor.server.schemas.generation import (
    MAX_TOP_LOGPROBS,
    PROMPT_LOGPROBS_EXCLUDE_STREAM,
    STREAM_OPTIONS_NEED_STREAM,
    Generation,
)

MAX_TOKENS = 2**20
DEFAULT_MAX_TOKENS = 16
"""The default of OpenAI's API."""

MAX_PROMPTS = 2048
"""The limit of OpenAI's API."""

TokenId = Annotated[Count, Field(lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(max_length=MAX_TOKENS, fail_fast=True)]
TextPrompt = Annotated[Text, Field(min_length=1)]
IdsPrompt = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS, fail_fast=True)]
Prompts = Annotated[
    list[TextPrompt | IdsPrompt], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)
]
THINKING_NOT_EXCLUDED: dict[str, Any] = {
    "properties": {"reasoning": {"properties": {"exclude": {"not": {"const": True}}}}}
}
"""The check of `_thinking_not_excluded`, as a JSON schema."""
ZERO_MAX_TOKENS_NEEDS_OUTPUT: dict[str, Any] = {
    "if": {"required": ["max_tokens"], "properties": {"max_tokens": {"const": 0}}},
    "then": {
        "anyOf": [
            {"required": ["echo"], "properties": {"echo": {"const": True}}},
            {"required": ["prompt_logprobs"], "properties": {"prompt_logprobs": {"not": NULL}}},
        ]
    },
}
"""The check of admission on requests that generate nothing, as a JSON schema."""


def _kind(value: Any) -> str:
    """Return the tag of the type that a prompt is validated as."""
    if not isinstance(value, list):
        return "text"
    return "several" if value and isinstance(value[0], str | list) else "ids"


class CompletionRequest(Generation):
    """The body of `POST /v1/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                STREAM_OPTIONS_NEED_STREAM,
                THINKING_NOT_EXCLUDED,
                ZERO_MAX_TOKENS_NEEDS_OUTPUT,
                PROMPT_LOGPROBS_EXCLUDE_STREAM,
            ]
        }
    )

    prompt: Annotated[
        Annotated[TextPrompt, Tag("text")]
        | Annotated[IdsPrompt, Tag("ids")]
        | Annotated[Prompts, Tag("several")],
        Discriminator(_kind),
    ]
    """The prompt: a string, which may contain special tokens, or a list of token IDs. Or a list of
    such prompts, for each of which `n` choices are generated."""
    max_tokens: Annotated[Int, Field(ge=0)] | None = None
    """The maximum number of tokens in each choice, thinking included. Defaults to 16, as in
    OpenAI's API, or to the rest of the context if the prompt ends inside a thinking block. 0
    generates nothing, and requires `echo` or `prompt_logprobs`."""
    echo: Flag | None = None
    """Whether each text begins with its prompt. `logprobs` then includes the prompt's tokens."""
    logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """The number of most likely tokens to return at each position, in addition to the generated
    token. Log probabilities are those before temperature, logits masks and penalties."""
    add_special_tokens: Flag | None = None
    """Whether to add the tokenizer's special tokens to the prompt, such as a beginning-of-sequence
    token. Defaults to true."""
    budget_tier: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The name of a tier. A tier with a minimum, like every budget that requires thinking, requires
    a prompt that ends inside a thinking block."""

    @model_validator(mode="after")
    def _thinking_not_excluded(self) -> "CompletionRequest":
        if self.reasoning is not None and self.reasoning.exclude:
            reason = "is not supported for completions: the text includes all generated tokens"
            raise PydanticCustomError(
                "field", "{reason}", {"field": "reasoning.exclude", "reason": reason}
            )
        return self

    @property
    def requested_max_tokens(self) -> int | None:
        """The requested maximum number of tokens in each choice."""
        return self.max_tokens

    @property
    def requested_logprobs(self) -> int | None:
        """The number of most likely tokens to return at each position; None for no logprobs."""
        return self.logprobs

    @property
    def requested_prompt_logprobs(self) -> int | None:
        """The number of most likely tokens to return at each position of the prompt.

        An echoed prompt needs as many as `logprobs`.
        """
        counts = [self.prompt_logprobs, self.logprobs if self.echo else None]
        return max((count for count in counts if count is not None), default=None)

    @property
    def prompts(self) -> list[tuple[str, str | list[int]]]:
        """Pairs of the path and the value of each prompt."""
        if _kind(self.prompt) != "several":
            return [("prompt", cast(str | list[int], self.prompt))]
        return [
            (f"prompt[{index}]", cast(str | list[int], prompt))
            for index, prompt in enumerate(self.prompt)
        ]
