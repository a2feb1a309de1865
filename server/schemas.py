"""The request, as a client may send it."""

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
Int = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=0)]
CountOrNoCap = Annotated[Int, Field(ge=-1)]


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

    model_config = ConfigDict(extra="allow", frozen=True)

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
    text: Text


class Message(Part):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[TextPart],
        Field(min_length=1, max_length=MAX_PARTS),
        BeforeValidator(_text_as_parts, json_schema_input_type=str | list[TextPart]),
    ]
    name: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None

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


class Thinking(Part):
    """The budget's finer points.

    Attributes:
        type: `disabled` is no thinking; `enabled` insists on some; `auto` is neither.
        budget_tokens: the same as `max_thinking_tokens`.
        min_tokens: the same as `min_thinking_tokens`.
        continuations: how many attempts to close the thinking to turn down.
        continuation_text: what to inject instead, in rotation.
        wrap_up_text: what to inject before a forced end.
        on_loop: what to do about a thinking that repeats itself.
        landing: whether to close a thinking that runs into its maximum at the
            end of a sentence shortly before it, or hard at it.
    """

    type: Literal["enabled", "disabled", "auto"] | None = None
    budget_tokens: CountOrNoCap | None = None
    min_tokens: Count | None = None
    continuations: Count | None = None
    continuation_text: (
        Annotated[
            list[Annotated[Text, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]],
            Field(min_length=1, max_length=MAX_TEXTS),
            BeforeValidator(_one_as_list, json_schema_input_type=str | list[str]),
        ]
        | None
    ) = None
    wrap_up_text: Annotated[Text, Field(max_length=MAX_TEXT_LENGTH)] | None = None
    on_loop: OnLoop | None = None
    landing: Landing | None = None


class Reasoning(Part):
    """OpenRouter's spelling of a budget.

    Attributes:
        effort: the same as `reasoning_effort`.
        max_tokens: the same as `max_thinking_tokens`.
        enabled: the same as `thinking.type`: `enabled` or `disabled`.
        exclude: think, but leave the thinking out of the response.
    """

    effort: Effort | None = None
    max_tokens: CountOrNoCap | None = None
    enabled: Flag | None = None
    exclude: Flag | None = None


class NvExt(Part):
    """NVIDIA's spelling of a budget."""

    max_thinking_tokens: CountOrNoCap | None = None


class TemplateSwitches(Part):
    """The switches of chat templates that turn thinking on and off."""

    enable_thinking: Flag | None = None
    thinking: Flag | None = None


class ChatRequest(Part):
    """The body of `POST /v1/chat/completions`.

    Attributes:
        max_thinking_tokens: most thinking tokens of each choice; 0 is none, -1 no cap.
        min_thinking_tokens: fewest thinking tokens of each choice.
        budget_tier: a tier's name, or `auto`: the router chooses.
        reasoning_effort: chooses a tier by the server's table.
        thinking_token_budget: vLLM's name for `max_thinking_tokens`.
        thinking_budget: Qwen's.
        reasoning_budget_tokens: llama.cpp's.
        thinking_budget_tokens: llama.cpp's.
        reasoning_max_tokens: another.
        enable_thinking: Qwen's `thinking.type`: `enabled` or `disabled`.
        think: Ollama's: the same, or an effort.
        max_completion_tokens: most tokens of each choice, thinking included.
        max_tokens: the same.
        n: choices to generate.
        reasoning_format: where in the response the thinking stands.
    """

    model: Annotated[Text, Field(max_length=MAX_NAME)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_thinking_tokens: CountOrNoCap | None = None
    min_thinking_tokens: Count | None = None
    budget_tier: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    thinking: Thinking | None = None
    reasoning_effort: Effort | None = None
    reasoning: Reasoning | None = None
    thinking_token_budget: CountOrNoCap | None = None
    thinking_budget: CountOrNoCap | None = None
    enable_thinking: Flag | None = None
    nvext: NvExt | None = None
    reasoning_budget_tokens: CountOrNoCap | None = None
    thinking_budget_tokens: CountOrNoCap | None = None
    reasoning_max_tokens: CountOrNoCap | None = None
    chat_template_kwargs: TemplateSwitches | None = None
    think: Flag | Effort | None = None
    reasoning_format: ReasoningFormat | None = None
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[Int, Field(ge=1)] | None = None
    temperature: Annotated[Float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Float, Field(gt=0, le=1)] | None = None
    seed: Int | None = None
    stop: (
        Annotated[
            list[Annotated[Text, Field(min_length=1, max_length=MAX_STOP_LENGTH)]],
            Field(max_length=MAX_STOPS),
            BeforeValidator(_one_as_list, json_schema_input_type=str | list[str]),
        ]
        | None
    ) = None
    n: Annotated[Int, Field(ge=1)] | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None

    def ignored_fields(self) -> list[str]:
        """Names of fields that were given and are ignored, nested ones with their path."""
        nested = self.stream_options.ignored_fields() if self.stream_options else []
        return super().ignored_fields() + [f"stream_options.{name}" for name in nested]
