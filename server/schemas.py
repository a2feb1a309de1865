"""The request, as a client may send it.

The text under each field is its description, in `/openapi.json` too.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from budget import Landing, OnLoop
from server.fields import ignored, is_ignored, refusal

MAX_NAME = 256
MAX_MESSAGES = 4096
MAX_PARTS = 256
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_TEXTS = 16
MAX_TEXT_LENGTH = 1024

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict(), Field(ge=-(2**63), le=2**63 - 1)]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=0)]
CountOrNoCap = Annotated[Int, Field(ge=-1)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
ContinuationText = Annotated[Text, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]
ContinuationTexts = Annotated[list[ContinuationText], Field(min_length=1, max_length=MAX_TEXTS)]


def _one_as_list(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return value
    raise PydanticCustomError("texts", "It should be a string or a list of strings")


def _text_as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if isinstance(value, list):
        return value
    raise PydanticCustomError("content", "It should be a string or a list of text parts")


class ReasoningFormat(StrEnum):
    """Where in a response the thinking stands."""

    REASONING_CONTENT = "reasoning_content"
    REASONING = "reasoning"
    BOTH = "both"
    TAGS = "tags"
    HIDDEN = "hidden"


class Part(BaseModel):
    """Part of a request; fields that it does not know are refused by name."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _refuse_unknown(self) -> "Part":
        for name, value in (self.model_extra or {}).items():
            if not is_ignored(name, value):
                reason = refusal(name, list(type(self).model_fields))
                raise PydanticCustomError("field", "{reason}", {"field": name, "reason": reason})
        return self

    def ignored_fields(self) -> list[str]:
        """Names of fields that were given and are ignored."""
        return ignored((self.model_extra or {}).items())


class TextPart(Part):
    """A message's content, or a part of it."""

    type: Literal["text"]
    """The kind of part; text is the only one."""
    text: Text
    """The text itself. Special tokens typed into it stay plain text."""


Parts = Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)]


class Message(Part):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    """Who speaks; `developer` is the same as `system`."""
    content: Annotated[Parts, BeforeValidator(_text_as_parts, json_schema_input_type=Text | Parts)]
    """What is said: a text, or parts that are joined by newlines."""
    name: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The speaker's name, for templates that show it."""
    reasoning_content: Text | None = None
    """What the assistant thought before this message, for templates that show it."""
    reasoning: Text | None = None
    """The same as `reasoning_content`, which goes first."""

    @property
    def text(self) -> str:
        """Its content in one piece."""
        return "\n".join(part.text for part in self.content)

    def to_plain(self) -> dict[str, str]:
        """The message as a chat template takes it; a developer is a system."""
        role = "system" if self.role == "developer" else self.role
        plain = {"role": role, "content": self.text}
        if self.name is not None:
            plain["name"] = self.name
        if thinking := self.reasoning_content or self.reasoning:
            plain["reasoning_content"] = thinking
        return plain


class Effort(StrEnum):
    """OpenAI's `reasoning_effort`, and the further levels that its peers have."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class StreamOptions(Part):
    """How to stream."""

    include_usage: Flag | None = None
    """Whether to send usage and cost in a chunk of their own before the end."""


class Thinking(Part):
    """The budget's finer points."""

    type: Literal["enabled", "disabled", "auto"] | None = None
    """`disabled` is no thinking; `enabled` insists on some; `auto` is neither."""
    budget_tokens: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`, as Anthropic spells it."""
    min_tokens: Count | None = None
    """The same as `min_thinking_tokens`."""
    continuations: Count | None = None
    """How many attempts to close the thinking to turn down; 8 at most."""
    continuation_text: (
        Annotated[
            ContinuationTexts,
            BeforeValidator(
                _one_as_list, json_schema_input_type=ContinuationText | ContinuationTexts
            ),
        ]
        | None
    ) = None
    """What to inject instead: a text, or several in rotation."""
    wrap_up_text: Annotated[Text, Field(max_length=MAX_TEXT_LENGTH)] | None = None
    """What to inject before a forced end; it is inside the budget."""
    on_loop: OnLoop | None = None
    """What to do about a thinking that repeats itself."""
    landing: Landing | None = None
    """Whether to close a thinking that runs into its maximum at the end of a sentence
    shortly before it, or hard at it."""


class Reasoning(Part):
    """OpenRouter's spelling of a budget."""

    effort: Effort | None = None
    """The same as `reasoning_effort`."""
    max_tokens: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`."""
    enabled: Flag | None = None
    """The same as a `thinking.type` of `enabled` or `disabled`."""
    exclude: Flag | None = None
    """Whether to leave the thinking out of the response; the model thinks all the same."""


class NvExt(Part):
    """NVIDIA's spelling of a budget."""

    max_thinking_tokens: CountOrNoCap | None = None
    """The same as the field of that name beside `nvext`."""


class TemplateSwitches(Part):
    """The switches of chat templates that turn thinking on and off."""

    enable_thinking: Flag | None = None
    """The same as a `thinking.type` of `enabled` or `disabled`."""
    thinking: Flag | None = None
    """The same as `enable_thinking`."""


class ChatRequest(Part):
    """The body of `POST /v1/chat/completions`."""

    model: Annotated[Text, Field(max_length=MAX_NAME)]
    """The model's name, as `GET /v1/models` lists it."""
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    """The conversation so far, oldest message first."""
    max_thinking_tokens: CountOrNoCap | None = None
    """Most thinking tokens of each choice; 0 is no thinking, -1 no cap but the context."""
    min_thinking_tokens: Count | None = None
    """Fewest thinking tokens of each choice."""
    budget_tier: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """A tier's name, or `auto`: the router chooses."""
    thinking: Thinking | None = None
    """The budget's finer points."""
    reasoning_effort: Effort | None = None
    """Chooses a tier by the server's table."""
    reasoning: Reasoning | None = None
    """The budget as OpenRouter spells it."""
    thinking_token_budget: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`, as vLLM spells it."""
    thinking_budget: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`, as Qwen spells it."""
    enable_thinking: Flag | None = None
    """The same as a `thinking.type` of `enabled` or `disabled`, as Qwen spells it."""
    nvext: NvExt | None = None
    """The budget as NVIDIA spells it."""
    reasoning_budget_tokens: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`, as llama.cpp spells it."""
    thinking_budget_tokens: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`, as llama.cpp spells it."""
    reasoning_max_tokens: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`."""
    chat_template_kwargs: TemplateSwitches | None = None
    """Switches of the chat template; only those of the thinking are taken."""
    think: Flag | Effort | None = None
    """Ollama's switch: the same as `thinking.type`, or, as a word, as `reasoning_effort`."""
    reasoning_format: ReasoningFormat | None = None
    """Where in the response the thinking stands; the server has a default."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """The same as `max_completion_tokens`, as OpenAI once spelt it."""
    max_completion_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Most tokens of each choice, thinking included; what the context leaves if unset."""
    temperature: Annotated[Float, Field(ge=0, le=2)] | None = None
    """How freely to sample; 0 always takes the likeliest token. Unset is the tier's or the
    model's own."""
    top_p: Annotated[Float, Field(gt=0, le=1)] | None = None
    """Sample from the likeliest tokens that have this much probability together. Unset is the
    tier's or the model's own."""
    seed: Int | None = None
    """Makes the answer reproducible, as far as the hardware is."""
    stop: (
        Annotated[Stops, BeforeValidator(_one_as_list, json_schema_input_type=Stop | Stops)] | None
    ) = None
    """A text, or several, that end the answer and are left out of it; the thinking may
    hold them."""
    n: Annotated[Int, Field(ge=1)] | None = None
    """Choices to generate; the server's `limits.max_choices` at most, which is 16 by default."""
    stream: Flag | None = None
    """Whether to send the answer as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """How to stream; only with `stream`."""

    def ignored_fields(self) -> list[str]:
        """Names of fields that were given and are ignored, nested ones with their path."""
        nested = self.stream_options.ignored_fields() if self.stream_options else []
        return super().ignored_fields() + [f"stream_options.{name}" for name in nested]
