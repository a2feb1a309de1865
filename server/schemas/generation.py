"""The request models that all generation endpoints share, and the chat request."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from proctor.budget import MAX_CONTINUATIONS, Landing, OnLoop
from proctor.server.config.limits import MAX_NAME
from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.engines.tool_calls import Constraint, ToolChoice
from proctor.server.errors import BadRequest
from proctor.server.schemas.base import (
    NULL,
    Count,
    CountOrNoCap,
    Flag,
    Float,
    Int,
    RequestModel,
    Text,
    needs,
    one_as_list,
)
from proctor.server.schemas.messages import Message
from proctor.server.schemas.tools import (
    MAX_TOOLS,
    NamedTool,
    ResponseFormat,
    StructuredOutputs,
    Tool,
    choose_tools,
)

MAX_MESSAGES = 4096
MAX_TOP_K = 2**31 - 1
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 1024
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_TEXTS = 16
MAX_TEXT_LENGTH = 1024

STREAM_OPTIONS_NEED_STREAM = needs("stream_options", {"not": NULL}, stream={"const": True})
TOP_LOGPROBS_NEED_LOGPROBS = needs(
    "top_logprobs", {"type": "integer", "minimum": 1}, logprobs={"const": True}
)
TOOL_CHOICE_NEEDS_TOOLS = needs(
    "tool_choice",
    {"not": {"enum": ["none", "auto", None]}},
    tools={"type": "array", "minItems": 1},
)
PROMPT_LOGPROBS_EXCLUDE_STREAM: dict[str, Any] = {
    "if": {"required": ["prompt_logprobs"], "properties": {"prompt_logprobs": {"not": NULL}}},
    "then": {"properties": {"stream": {"enum": [False, None]}}},
}
STRUCTURED_OUTPUTS_EXCLUDE_RESPONSE_FORMAT: dict[str, Any] = {
    "if": {"required": ["structured_outputs"], "properties": {"structured_outputs": {"not": NULL}}},
    "then": {
        "properties": {
            "response_format": {"anyOf": [NULL, {"properties": {"type": {"const": "text"}}}]}
        }
    },
}
"""The checks of admission on fields that depend on each other, as JSON schemas. JSON schema cannot
express that numbers contradict each other: such a request gets a 400 that names both fields."""

TOKEN_ID_KEYS: dict[str, Any] = {"propertyNames": {"pattern": "^[0-9]{1,9}$"}}
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
ContinuationText = Annotated[Text, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]
ContinuationTexts = Annotated[list[ContinuationText], Field(min_length=1, max_length=MAX_TEXTS)]


def _check_size(value: Any) -> Any:
    """Check the number of entries before each of them is validated."""
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        raise PydanticCustomError(
            "too_long", "Input should have at most {maximum} keys", {"maximum": MAX_BIASES}
        )
    return value


class Effort(StrEnum):
    """The levels of OpenAI's `reasoning_effort`, and those that other APIs add."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class StreamOptions(RequestModel):
    """Options for streaming responses."""

    include_usage: Flag | None = None
    """Whether to send a final chunk with usage and cost before `data: [DONE]`."""
    continuous_usage_stats: Flag | None = None
    """Whether every chunk also has the usage of its choice so far, as in vLLM. Requires
    `include_usage`."""


class Thinking(RequestModel):
    """Options of the thinking budget."""

    type: Literal["enabled", "disabled", "auto", "adaptive"] | None = None
    """`disabled` turns thinking off, `enabled` requires some thinking, and `auto` (in Anthropic's
    API, `adaptive`) lets the router choose."""
    budget_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in Anthropic's API."""
    min_tokens: Count | None = None
    """Alias of `min_thinking_tokens`."""
    continuations: Annotated[Count, Field(le=MAX_CONTINUATIONS)] | None = None
    """The number of attempts to close the thinking that are replaced by a continuation."""
    continuation_text: (
        Annotated[
            ContinuationTexts,
            BeforeValidator(
                one_as_list, json_schema_input_type=ContinuationText | ContinuationTexts
            ),
        ]
        | None
    ) = None
    """The text of the continuations: a string, or several strings used in rotation."""
    wrap_up_text: Annotated[Text, Field(max_length=MAX_TEXT_LENGTH)] | None = None
    """The text to insert before a forced end of the thinking. It counts against the budget."""
    on_loop: OnLoop | None = None
    """What to do when the thinking repeats itself."""
    landing: Landing | None = None
    """Where to close thinking that reaches its maximum: at the end of a sentence shortly before, or
    exactly at the maximum."""
    logprobs: Flag | None = None
    """Whether `logprobs` also returns the log probabilities of the thinking's tokens."""


class Reasoning(RequestModel):
    """The thinking budget, as in OpenRouter's API."""

    effort: Effort | None = None
    """Alias of `reasoning_effort`."""
    max_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`."""
    enabled: Flag | None = None
    """Alias of a `thinking.type` of `enabled` or `disabled`."""
    exclude: Flag | None = None
    """Whether to leave the thinking out of the response. The model still thinks."""


class NvExt(RequestModel):
    """The thinking budget, as in NVIDIA's API."""

    max_thinking_tokens: CountOrNoCap | None = None
    """Alias of the top-level field of this name."""


class TemplateSwitches(RequestModel):
    """The variables of chat templates that turn thinking on and off."""

    enable_thinking: Flag | None = None
    """Alias of a `thinking.type` of `enabled` or `disabled`."""
    thinking: Flag | None = None
    """Alias of `enable_thinking`."""


class Generation(RequestModel):
    """The fields that chat requests and completion requests share."""

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The name of the model, as listed by `GET /v1/models`. Defaults to the model that is
    served."""
    max_thinking_tokens: CountOrNoCap | None = None
    """The maximum number of thinking tokens in each choice. 0 turns thinking off, and -1 sets no
    limit but the context."""
    min_thinking_tokens: Count | None = None
    """The minimum number of thinking tokens in each choice."""
    budget_tier: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The name of a tier, or `auto` to let the router choose one."""
    thinking: Thinking | None = None
    """Options of the thinking budget."""
    reasoning_effort: Effort | None = None
    """The reasoning effort, which selects a tier by the server's configuration."""
    reasoning: Reasoning | None = None
    """The thinking budget, as in OpenRouter's API."""
    thinking_token_budget: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in vLLM."""
    thinking_budget: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in Qwen's API."""
    enable_thinking: Flag | None = None
    """Alias of a `thinking.type` of `enabled` or `disabled`, as in Qwen's API."""
    nvext: NvExt | None = None
    """The thinking budget, as in NVIDIA's API."""
    reasoning_budget_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in llama.cpp."""
    thinking_budget_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`, as in llama.cpp."""
    reasoning_max_tokens: CountOrNoCap | None = None
    """Alias of `max_thinking_tokens`."""
    think: Flag | Effort | None = None
    """Alias of `thinking.type` if a boolean, or of `reasoning_effort` if a string, as in Ollama."""
    temperature: Annotated[Float, Field(ge=0, le=2)] | None = None
    """The sampling temperature. Higher values make the output more random; 0 always selects the
    most likely token. Defaults to the value of the tier or the model."""
    top_p: Annotated[Float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling: only the most likely tokens whose probabilities add up to `top_p` are
    considered. Defaults to the value of the tier or the model."""
    top_k: Annotated[Int, Field(ge=-1, le=MAX_TOP_K)] | None = None
    """The number of most likely tokens to consider, or -1 for all."""
    min_p: Annotated[Float, Field(ge=0, le=1)] | None = None
    """The minimum probability of a token to be considered, relative to the probability of the most
    likely token."""
    presence_penalty: Annotated[Float, Field(ge=-2, le=2)] | None = None
    """Subtracted from the logits of tokens that have been generated, thinking included."""
    frequency_penalty: Annotated[Float, Field(ge=-2, le=2)] | None = None
    """Subtracted from the logits of tokens once for each time that they have been generated,
    thinking included."""
    repetition_penalty: Annotated[Float, Field(ge=0.001, le=2)] | None = None
    """Penalizes tokens that occur in the prompt or in the generated text. Values above 1 make them
    less likely; 1 has no effect."""
    logit_bias: (
        Annotated[
            dict[TokenId, Annotated[Float, Field(ge=-100, le=100)]],
            Field(max_length=MAX_BIASES, json_schema_extra=TOKEN_ID_KEYS),
            BeforeValidator(_check_size),
        ]
        | None
    ) = None
    """Values to add to the logits of tokens, keyed by token ID. They do not affect tokens that the
    budget forces."""
    seed: Int | None = None
    """The seed for sampling. Requests with the same seed and parameters return the same result, as
    far as the hardware is deterministic."""
    stop: (
        Annotated[Stops, BeforeValidator(one_as_list, json_schema_input_type=Stop | Stops)] | None
    ) = None
    """A string, or several, at which the answer stops. The answer does not include it. Stop strings
    do not apply to the thinking."""
    min_tokens: Count | None = None
    """The minimum number of tokens in the answer: before, neither an end of turn nor a stop string
    ends it. Thinking tokens do not count."""
    ignore_eos: Flag | None = None
    """Whether to never sample an end-of-turn token, so that the answer uses all tokens that it may
    have."""
    prompt_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """The number of most likely tokens to return at each position of the prompt, in addition to the
    prompt's own token. Not supported with `stream`."""
    return_token_ids: Flag | None = None
    """Whether to return the IDs of the prompt's tokens and of the generated tokens."""
    n: Annotated[Int, Field(ge=1)] | None = None
    """The number of choices to generate, at most the server's `limits.max_choices` (by default,
    16)."""
    stream: Flag | None = None
    """Whether to stream the response as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """Options for streaming responses. Requires `stream`."""
    event_names: Flag | None = None
    """Whether the events of a stream have names. Takes precedence over the header `x-event-names`
    and the server's configuration."""

    @property
    def template_switches(self) -> TemplateSwitches:
        """The variables of the chat template, if there is one."""
        return TemplateSwitches()

    @property
    def requested_logprobs(self) -> int | None:
        """The number of most likely tokens to return at each position; None for no logprobs."""
        return None

    @property
    def requested_prompt_logprobs(self) -> int | None:
        """The number of most likely tokens to return at each position of the prompt."""
        return self.prompt_logprobs


class ChatRequest(Generation):
    """The body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(
        # Do not add a fifth: generators of test data fail on such a schema.
        json_schema_extra={
            "allOf": [
                STREAM_OPTIONS_NEED_STREAM,
                TOP_LOGPROBS_NEED_LOGPROBS,
                TOOL_CHOICE_NEEDS_TOOLS,
                STRUCTURED_OUTPUTS_EXCLUDE_RESPONSE_FORMAT,
            ]
        }
    )

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    """The messages of the conversation, oldest first."""
    chat_template_kwargs: TemplateSwitches | None = None
    """Variables for the chat template. Only those that control thinking are supported."""
    reasoning_format: ReasoningFormat | None = None
    """Where the response has the thinking. Defaults to the server's configuration."""
    include_reasoning: Flag | None = None
    """Whether the response includes the thinking, as in vLLM. False has the same effect as
    `reasoning.exclude`."""
    separate_reasoning: Flag | None = None
    """Whether the thinking is separated from the content, as in SGLang. False has the same effect
    as a `reasoning_format` of `tags`."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Alias of `max_completion_tokens`, deprecated by OpenAI."""
    max_completion_tokens: Annotated[Int, Field(ge=1)] | None = None
    """The maximum number of tokens in each choice, thinking included. Defaults to the rest of the
    context."""
    logprobs: Flag | None = None
    """Whether to return the log probabilities of the answer's tokens, before temperature, logits
    masks and penalties."""
    top_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """The number of most likely tokens to return at each position. Requires `logprobs`."""
    continue_final_message: Flag | None = None
    """Whether the answer continues the last message, which must be from the assistant: its content,
    or its thinking if it has no content."""
    add_generation_prompt: Flag | None = None
    """Whether to begin a new message; the opposite of `continue_final_message`."""
    echo: Flag | None = None
    """Whether the response includes the beginning of the message that it continues. Requires
    `continue_final_message`."""
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    """The functions that the model may call."""
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """Which tools the model calls: `auto` (the default) lets the model choose, `none` disables tool
    calls, `required` requires one or more calls, and naming a function requires that function to be
    called."""
    parallel_tool_calls: Flag | None = None
    """Whether the model may call several functions at once. Defaults to true."""
    response_format: ResponseFormat | None = None
    """The format of the answer. The thinking is not constrained."""
    structured_outputs: StructuredOutputs | None = None
    """The format of the answer, with all options of vLLM's structured outputs."""

    @property
    def template_switches(self) -> TemplateSwitches:
        """The variables of the chat template."""
        return self.chat_template_kwargs or TemplateSwitches()

    @property
    def requested_logprobs(self) -> int | None:
        """The number of most likely tokens to return at each position; None for no logprobs."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def constraint(self) -> Constraint | None:
        """Return the constraint of the answer's format, apart from tool calls.

        Raises:
            BadRequest: if both `response_format` and `structured_outputs` set one.
        """
        outputs, response_format = self.structured_outputs, self.response_format
        if outputs is None:
            return None if response_format is None else response_format.constraint()
        if response_format is not None and response_format.type != "text":
            raise BadRequest(
                "'response_format' cannot be combined with 'structured_outputs'. Remove one of "
                "them.",
                param="response_format",
            )
        return outputs.constraint()

    def resolve_tool_choice(self) -> ToolChoice | None:
        """Return the tools and whether to call them, or None if no calls are allowed.

        Raises:
            BadRequest: if `tools` and `tool_choice` contradict each other.
        """
        return choose_tools(
            self.tools or [],
            self.tool_choice,
            self.constraint(),
            parallel=self.parallel_tool_calls is not False,
        )
