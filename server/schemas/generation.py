"""The request models that all generation endpoints share, and the chat request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.config.section import coalesce
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.engines.tool_calls import Constraint, ToolChoice
from proctor.server.errors import BadRequest
from proctor.server.schemas.base import (
    NULL,
    Count,
    Flag,
    Float,
    Int,
    RequestModel,
    Text,
    needs,
    one_as_list,
)
from proctor.server.schemas.budget import BudgetFields
from proctor.server.schemas.messages import MAX_MESSAGES, Message, PriorThinking
from proctor.server.schemas.sessions import SessionFields, session_names
from proctor.server.schemas.tools import (
    MAX_TOOLS,
    NamedTool,
    ResponseFormat,
    StructuredOutputs,
    Tool,
    choose_tools,
)

MAX_TOP_K = 2**31 - 1
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 1024
MAX_PRIORITY = 2**31 - 1
MAX_STOPS = 16
MAX_STOP_LENGTH = 256

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


def _check_size(value: Any) -> Any:
    """Check the number of entries before each of them is validated."""
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        raise PydanticCustomError(
            "too_long", "Input should have at most {maximum} keys", {"maximum": MAX_BIASES}
        )
    return value


class StreamOptions(RequestModel):
    """Options for streaming responses."""

    include_usage: Flag | None = None
    """Whether to send a final chunk with usage and cost before `data: [DONE]`."""
    continuous_usage_stats: Flag | None = None
    """Whether every chunk also has the usage of its choice so far, as in vLLM. Requires
    `include_usage`."""


class TemplateSwitches(RequestModel):
    """The variables of chat templates that turn thinking on and off."""

    enable_thinking: Flag | None = None
    """Alias of a `thinking.type` of `enabled` or `disabled`."""
    thinking: Flag | None = None
    """Alias of `enable_thinking`."""


class Generation(BudgetFields):
    """The fields that chat requests and completion requests share.

    Attributes:
        clamps_max_tokens: whether a maximum number of tokens that exceeds the rest of the context
            is reduced to it, rather than rejected.
        supports_parallel: whether several chains can vote on the answer.
    """

    clamps_max_tokens: ClassVar[bool] = False
    supports_parallel: ClassVar[bool] = False

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The name of the model, as listed by `GET /v1/models`. Defaults to the model that is
    served."""
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
    priority: Annotated[Int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    """The priority in the engine: lower values are handled earlier, and the default is 0. Other
    values require an engine that schedules by priority (vLLM's `scheduling_policy`)."""
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
    session: SessionFields | None = None
    """The session that the request belongs to, and limits for all its requests together."""

    @property
    def session_names(self) -> Iterable[str]:
        """What names the session in fields that also serve other purposes, by precedence."""
        return session_names(self.model_extra or {})

    @property
    def requested_max_tokens(self) -> int | None:
        """The requested maximum number of tokens in each choice."""
        return None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk of a stream has the usage so far."""
        options = self.stream_options
        return self.include_usage and options is not None and bool(options.continuous_usage_stats)

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

    supports_parallel: ClassVar[bool] = True

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
    def prior_thinking(self) -> Mapping[int, Sequence[PriorThinking]] | None:
        """The thinking blocks of earlier responses, by index of their message, with their records.

        None in chats, whose messages carry no records. Requests of protocols with records override
        this. There, the thinking of a message is the texts of its blocks, joined by newlines.
        """
        return None

    @property
    def template_switches(self) -> TemplateSwitches:
        """The variables of the chat template."""
        return self.chat_template_kwargs or TemplateSwitches()

    @property
    def requested_max_tokens(self) -> int | None:
        """The requested maximum number of tokens in each choice."""
        return coalesce(self.max_tokens, self.max_completion_tokens)

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
