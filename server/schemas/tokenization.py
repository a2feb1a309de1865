"""The request models of tokenization."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import Flag, RequestModel, Text
from proctor.server.schemas.completions import TokenIds
from proctor.server.schemas.generation import MAX_MESSAGES, TemplateSwitches
from proctor.server.schemas.messages import Message
from proctor.server.schemas.tools import MAX_TOOLS, Tool

ONE_OF_THEM: dict[str, Any] = {
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
    """The body of `POST /tokenize`: a prompt, or the messages of a conversation."""

    model_config = ConfigDict(json_schema_extra=ONE_OF_THEM)

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The model's name, as `GET /v1/models` lists it; it may be left out."""
    prompt: Text | None = None
    """A text, in which special tokens may be spelled."""
    messages: Annotated[tuple[Message, ...], Field(max_length=MAX_MESSAGES)] = ()
    """A conversation, instead of a prompt; the chat template makes the prompt."""
    add_special_tokens: Flag | None = None
    """Whether to add the tokens that begin or end a text. By default they are added to a prompt;
    to messages they are not, for that is the template's part."""
    return_token_strs: Flag | None = None
    """Whether to tell the tokens as the vocabulary spells them, too."""
    add_generation_prompt: Flag | None = None
    """Whether to end the messages with the beginning of an answer; it is so by default."""
    continue_final_message: Literal[False] | None = None
    """The last message always ends as the template has it."""
    chat_template_kwargs: TemplateSwitches | None = None
    """Switches of the chat template; only those of the thinking are taken."""
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    """Functions that the model may call, of which the template tells it."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "TokenizeRequest":
        if (self.prompt is None) == (not self.messages):
            reason = "is required, or 'messages' in its place"
            raise PydanticCustomError("field", "{reason}", {"field": "prompt", "reason": reason})
        if self.messages and self.add_special_tokens:
            reason = "cannot be had with 'messages': the chat template adds them"
            raise PydanticCustomError(
                "field", "{reason}", {"field": "add_special_tokens", "reason": reason}
            )
        return self

    @property
    def thinking(self) -> bool:
        """Whether the template is to leave thinking on."""
        switches = self.chat_template_kwargs or TemplateSwitches()
        return False not in (switches.enable_thinking, switches.thinking)


class DetokenizeRequest(RequestModel):
    """The body of `POST /detokenize`."""

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The model's name, as `GET /v1/models` lists it; it may be left out."""
    tokens: TokenIds
    """Ids of tokens in the model's vocabulary."""
