"""The request, as a client may send it."""

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

STREAMING = needs("stream_options", {"not": NULL}, stream={"const": True})
SCORING = needs("top_logprobs", {"type": "integer", "minimum": 1}, logprobs={"const": True})
CALLING = needs(
    "tool_choice",
    {"not": {"enum": ["none", "auto", None]}},
    tools={"type": "array", "minItems": 1},
)
SCORED_WHOLE: dict[str, Any] = {
    "if": {"required": ["prompt_logprobs"], "properties": {"prompt_logprobs": {"not": NULL}}},
    "then": {"properties": {"stream": {"enum": [False, None]}}},
}
BINDING: dict[str, Any] = {
    "if": {"required": ["structured_outputs"], "properties": {"structured_outputs": {"not": NULL}}},
    "then": {
        "properties": {
            "response_format": {"anyOf": [NULL, {"properties": {"type": {"const": "text"}}}]}
        }
    },
}
"""What admission checks of fields that go together, as JSON schema. Numbers that contradict each
other it cannot say: such a request is a 400 that names both."""

KEYS_ARE_IDS: dict[str, Any] = {"propertyNames": {"pattern": "^[0-9]{1,9}$"}}
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
ContinuationText = Annotated[Text, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]
ContinuationTexts = Annotated[list[ContinuationText], Field(min_length=1, max_length=MAX_TEXTS)]


def _few(value: Any) -> Any:
    """See that a table is no longer than allowed, before each of its entries is looked at."""
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        raise PydanticCustomError(
            "long", "It should have at most {most} keys", {"most": MAX_BIASES}
        )
    return value


class Effort(StrEnum):
    """OpenAI's `reasoning_effort`, and the further levels that its peers have."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class StreamOptions(RequestModel):
    """How to stream."""

    include_usage: Flag | None = None
    """Whether to send usage and cost in a chunk of their own before the end."""
    continuous_usage_stats: Flag | None = None
    """Whether every chunk tells its choice's usage so far, too; only with `include_usage`, as
    vLLM has it."""


class Thinking(RequestModel):
    """The budget's finer points."""

    type: Literal["enabled", "disabled", "auto", "adaptive"] | None = None
    """`disabled` is no thinking; `enabled` insists on some; `auto`, which Anthropic calls
    `adaptive`, lets the router choose."""
    budget_tokens: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`, as Anthropic spells it."""
    min_tokens: Count | None = None
    """The same as `min_thinking_tokens`."""
    continuations: Annotated[Count, Field(le=MAX_CONTINUATIONS)] | None = None
    """How many attempts to close the thinking to turn down."""
    continuation_text: (
        Annotated[
            ContinuationTexts,
            BeforeValidator(
                one_as_list, json_schema_input_type=ContinuationText | ContinuationTexts
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
    logprobs: Flag | None = None
    """Whether `logprobs` tells those of the thinking's tokens too."""


class Reasoning(RequestModel):
    """OpenRouter's spelling of a budget."""

    effort: Effort | None = None
    """The same as `reasoning_effort`."""
    max_tokens: CountOrNoCap | None = None
    """The same as `max_thinking_tokens`."""
    enabled: Flag | None = None
    """The same as a `thinking.type` of `enabled` or `disabled`."""
    exclude: Flag | None = None
    """Whether to leave the thinking out of the response; the model thinks all the same."""


class NvExt(RequestModel):
    """NVIDIA's spelling of a budget."""

    max_thinking_tokens: CountOrNoCap | None = None
    """The same as the field of that name beside `nvext`."""


class TemplateSwitches(RequestModel):
    """The switches of chat templates that turn thinking on and off."""

    enable_thinking: Flag | None = None
    """The same as a `thinking.type` of `enabled` or `disabled`."""
    thinking: Flag | None = None
    """The same as `enable_thinking`."""


class Generation(RequestModel):
    """What chats and completions of raw prompts can ask for alike."""

    model: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    """The model's name, as `GET /v1/models` lists it; the one served if unset."""
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
    think: Flag | Effort | None = None
    """Ollama's switch: the same as `thinking.type`, or, as a word, as `reasoning_effort`."""
    temperature: Annotated[Float, Field(ge=0, le=2)] | None = None
    """How freely to sample; 0 always takes the likeliest token. Unset is the tier's or the
    model's own."""
    top_p: Annotated[Float, Field(gt=0, le=1)] | None = None
    """Sample from the likeliest tokens that have this much probability together. Unset is the
    tier's or the model's own."""
    top_k: Annotated[Int, Field(ge=-1, le=MAX_TOP_K)] | None = None
    """Sample from so many of the likeliest tokens; -1 is all of them."""
    min_p: Annotated[Float, Field(ge=0, le=1)] | None = None
    """Sample only tokens of at least this share of the likeliest one's probability."""
    presence_penalty: Annotated[Float, Field(ge=-2, le=2)] | None = None
    """Taken off the logits of tokens that were generated before, thinking included."""
    frequency_penalty: Annotated[Float, Field(ge=-2, le=2)] | None = None
    """The same, once for each time that they were."""
    repetition_penalty: Annotated[Float, Field(ge=0.001, le=2)] | None = None
    """Makes tokens less likely that the prompt or the answer holds; 1 does nothing."""
    logit_bias: (
        Annotated[
            dict[TokenId, Annotated[Float, Field(ge=-100, le=100)]],
            Field(max_length=MAX_BIASES, json_schema_extra=KEYS_ARE_IDS),
            BeforeValidator(_few),
        ]
        | None
    ) = None
    """Added to the logits of tokens, by id; what a budget forces, it cannot prevent."""
    seed: Int | None = None
    """Makes the answer reproducible, as far as the hardware is."""
    stop: (
        Annotated[Stops, BeforeValidator(one_as_list, json_schema_input_type=Stop | Stops)] | None
    ) = None
    """A text, or several, that end the answer and are left out of it; the thinking may
    hold them."""
    min_tokens: Count | None = None
    """Fewest tokens of the answer, which neither ends nor stops before; thinking does not count."""
    ignore_eos: Flag | None = None
    """Whether the answer goes on for as many tokens as it may have: no end of turn is sampled."""
    prompt_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """How many of the likeliest tokens to tell at each position of the prompt, beside the
    prompt's own; not in streams."""
    return_token_ids: Flag | None = None
    """Whether to tell the ids of the prompt's tokens and of those generated."""
    n: Annotated[Int, Field(ge=1)] | None = None
    """Choices to generate; the server's `limits.max_choices` at most, which is 16 by default."""
    stream: Flag | None = None
    """Whether to send the answer as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """How to stream; only with `stream`."""
    event_names: Flag | None = None
    """Whether a stream's events have names; goes before the header `x-event-names` and the
    server's setting."""

    @property
    def template_switches(self) -> TemplateSwitches:
        """How the chat template is to be switched, where there is one."""
        return TemplateSwitches()

    @property
    def requested_logprobs(self) -> int | None:
        """How many of the likeliest tokens to tell at each position; None tells no scores."""
        return None

    @property
    def requested_prompt_logprobs(self) -> int | None:
        """How many of them to ask for at each position of the prompt."""
        return self.prompt_logprobs


class ChatRequest(Generation):
    """The body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(
        # No more of them: generators of test data fail on a schema with five.
        json_schema_extra={"allOf": [STREAMING, SCORING, CALLING, BINDING]}
    )

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    """The conversation so far, oldest message first."""
    chat_template_kwargs: TemplateSwitches | None = None
    """Switches of the chat template; only those of the thinking are taken."""
    reasoning_format: ReasoningFormat | None = None
    """Where in the response the thinking stands; the server has a default."""
    include_reasoning: Flag | None = None
    """Whether the response has the thinking at all, as vLLM spells it: false is the same as
    `reasoning.exclude`."""
    separate_reasoning: Flag | None = None
    """Whether the thinking stands beside the content, as SGLang spells it: false is the
    `reasoning_format` of `tags`."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """The same as `max_completion_tokens`, as OpenAI once spelt it."""
    max_completion_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Most tokens of each choice, thinking included; what the context leaves if unset."""
    logprobs: Flag | None = None
    """Whether to tell the log probabilities of the answer's tokens, as the model found them
    before temperature, masks and penalties."""
    top_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """How many of the likeliest tokens to tell at each position; only with `logprobs`."""
    continue_final_message: Flag | None = None
    """Whether the answer goes on with the last message, an assistant's: with its content, or
    where it has none with its thinking."""
    add_generation_prompt: Flag | None = None
    """Whether a new message begins; false belongs to `continue_final_message`."""
    echo: Flag | None = None
    """Whether a message that is gone on with is told from its beginning; only with
    `continue_final_message`."""
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    """Functions that the model may call."""
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """Whether it must: `auto`, which is the default, `none`, `required`, or the function that
    it must call."""
    parallel_tool_calls: Flag | None = None
    """Whether it may call several at once; it may unless this is false."""
    response_format: ResponseFormat | None = None
    """What the answer must be; the thinking before it is free."""
    structured_outputs: StructuredOutputs | None = None
    """The same, with all the forms that vLLM has."""

    @property
    def template_switches(self) -> TemplateSwitches:
        """See `Generation`."""
        return self.chat_template_kwargs or TemplateSwitches()

    @property
    def requested_logprobs(self) -> int | None:
        """See `Generation`."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def constraint(self) -> Constraint | None:
        """What the answer is bound to, tools aside.

        Raises:
            BadRequest: if two fields contradict each other.
        """
        outputs, form = self.structured_outputs, self.response_format
        if outputs is None:
            return None if form is None else form.constraint()
        if form is not None and form.type != "text":
            raise BadRequest(
                "'response_format' and 'structured_outputs' contradict each other: send one",
                param="response_format",
            )
        return outputs.constraint()

    def tools_wanted(self) -> ToolChoice | None:
        """What the request wants of its tools, or None if it wants no calls.

        Raises:
            BadRequest: if its fields contradict each other.
        """
        return choose_tools(
            self.tools or [],
            self.tool_choice,
            self.constraint(),
            parallel=self.parallel_tool_calls is not False,
        )
