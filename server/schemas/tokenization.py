"""The request models of tokenization."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import Flag, RequestModel, Text
from proctor.server.schemas.completions import TokenIds
from proctor.server.schemas.generation import TemplateSwitches
from proctor.server.schemas.messages import MAX_MESSAGES, Message
from proctor.server.schemas.tools import MAX_TOOLS, Tool

PROMPT_OR_MESSAGES: dict[str, Any] = {
    "oneOf": [
        {
            "required": ["prompt"],
            "properties": {"prompt": {"type": "string"}, "messages": {"maxItems": 0}},
        },
        {
            "required": ["messages"],
            "properties": {
                "prompt": {"type": "null"},
                "messages": {"minItems": 1},
                "add_special_tokens": {"not": {"const": True}},
            },
        },
    ]
}


class TokenizeRequest(RequestModel):
    """The body of `POST /tokenize`: either a prompt or the messages of a conversation."""

    model_config = ConfigDict(json_schema_extra=PROMPT_OR_MESSAGES)

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The name of the model, as listed by `GET /v1/models`. Defaults to the model that is
    served."""
    prompt: Text | None = None
    """A text, which may contain special tokens."""
    messages: Annotated[tuple[Message, ...], Field(max_length=MAX_MESSAGES)] = ()
    """The messages of a conversation, which the chat template renders as a prompt."""
    add_special_tokens: Flag | None = None
    """Whether to add the special tokens that begin or end a text. Defaults to true for a prompt.
    Must not be true for messages, as the chat template adds them."""
    return_token_strs: Flag | None = None
    """Whether to also return the tokens as spelled in the vocabulary."""
    add_generation_prompt: Flag | None = None
    """Whether to end the prompt with the beginning of a new message. Defaults to true."""
    continue_final_message: Literal[False] | None = None
    """Must be false: continuing the last message is not supported."""
    chat_template_kwargs: TemplateSwitches | None = None
    """Variables for the chat template. Only those that control thinking are supported."""
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    """The functions that the model may call, which the chat template adds to the prompt."""

    @model_validator(mode="after")
    def _check_prompt_or_messages(self) -> "TokenizeRequest":
        if (self.prompt is None) == (not self.messages):
            reason = "or 'messages' is required, but not both"
            raise PydanticCustomError("field", "{reason}", {"field": "prompt", "reason": reason})
        if self.messages and self.add_special_tokens:
            reason = "is not supported with 'messages', as the chat template adds special tokens"
            raise PydanticCustomError(
                "field", "{reason}", {"field": "add_special_tokens", "reason": reason}
            )
        return self

    @property
    def thinking(self) -> bool:
        """Whether the chat template turns thinking on."""
        switches = self.chat_template_kwargs or TemplateSwitches()
        return False not in (switches.enable_thinking, switches.thinking)


class DetokenizeRequest(RequestModel):
    """The body of `POST /detokenize`."""

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The name of the model, as listed by `GET /v1/models`. Defaults to the model that is
    served."""
    tokens: TokenIds
    """The IDs of the tokens."""
