"""The request model of OpenAI's Responses API."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import AgentModel, Flag, Float, Int, Text
from proctor.server.schemas.budget import BudgetFields, Reasoning
from proctor.server.schemas.generation import MAX_TOP_K, MAX_TOP_LOGPROBS, Stops
from proctor.server.schemas.openai_responses.items import Input
from proctor.server.schemas.openai_responses.tools import InputTool, TextConfig, ToolChoice
from proctor.server.schemas.sessions import SessionFields
from proctor.server.schemas.tools import MAX_TOOLS

MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
MAX_INCLUDED = 64

LOGPROBS = "message.output_text.logprobs"
RECORDS = "reasoning.encrypted_content"
INCLUDED = (LOGPROBS, RECORDS)
"""The values of `include` that have an effect, or whose data is always there."""

OTHER_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "response_format": "text.format",
}
"""Fields of chat requests that have other names here."""

UNSUPPORTED = frozenset(
    {
        "conversation",
        "frequency_penalty",
        "functions",
        "logit_bias",
        "min_p",
        "min_tokens",
        "moderation",
        "n",
        "presence_penalty",
        "prompt",
        "repetition_penalty",
        "structured_outputs",
    }
)
"""Fields that would change the answer, or whose content the model would have to see."""

Name = Annotated[Text, Field(max_length=MAX_NAME)]
Metadata = dict[
    Annotated[Text, Field(max_length=MAX_METADATA_KEY)],
    Annotated[Text, Field(max_length=MAX_METADATA_VALUE)],
]


class ResponsesReasoning(AgentModel, Reasoning):
    """Options of the thinking."""

    summary: Literal["auto", "concise", "detailed"] | None = None
    """Whether the text of the thinking is in `summary`, where clients look for what they show,
    rather than in `content`. It is not summarized."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """Alias of `summary`, deprecated by OpenAI."""

    @property
    def has_summary(self) -> bool:
        """Whether the text of the thinking is in the summary."""
        return (self.summary or self.generate_summary) is not None


class ResponsesRequest(AgentModel, BudgetFields):
    """The body of `POST /v1/responses`. Unknown fields are ignored, and listed in a header."""

    rejected = UNSUPPORTED.union(OTHER_NAMES)

    model: Name | None = None
    """The name of the model, as listed by `GET /v1/models`. Defaults to the model that is
    served."""
    input: Input
    """The conversation, oldest first: a string, or items."""
    instructions: Text | None = None
    """The system prompt."""
    tools: Annotated[tuple[InputTool, ...], Field(max_length=MAX_TOOLS)] | None = None
    """The tools that the model may call."""
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    """Which tools the model calls: `auto` (the default) lets the model choose, `none` disables tool
    calls, `required` requires one or more calls, and an object names a tool, or the allowed
    tools."""
    parallel_tool_calls: Flag | None = None
    """Whether the model may call several tools at once. Defaults to true."""
    reasoning: ResponsesReasoning | None = None
    """Options of the thinking."""
    include_reasoning: Flag | None = None
    """Whether the response includes the text of the thinking. False has the same effect as
    `reasoning.exclude`."""
    text: TextConfig | None = None
    """Options of the answer."""
    max_output_tokens: Annotated[Int, Field(ge=1)] | None = None
    """The maximum number of tokens to generate, thinking included. At most as many as the context
    has left are generated; the header `x-max-tokens` has that number if it is smaller."""
    temperature: Annotated[Float, Field(ge=0, le=2)] | None = None
    """The sampling temperature. Defaults to the value of the tier or the model."""
    top_p: Annotated[Float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling: only the most likely tokens whose probabilities add up to `top_p` are
    considered."""
    top_k: Annotated[Int, Field(ge=-1, le=MAX_TOP_K)] | None = None
    """The number of most likely tokens to consider, or -1 for all."""
    seed: Int | None = None
    """The seed for sampling."""
    stop: Stops | None = None
    """Texts at which the answer stops. The answer does not include them, and they do not apply to
    the thinking."""
    top_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """The number of most likely tokens to return at each position of the answer."""
    include: Annotated[tuple[Name, ...], Field(max_length=MAX_INCLUDED)] | None = None
    """What to add to the response: `message.output_text.logprobs`. The records of the thinking,
    `reasoning.encrypted_content`, are always there."""
    stream: Flag | None = None
    """Whether to stream the response as server-sent events while it is generated."""
    store: Flag | None = None
    """Whether to store the response."""
    background: Flag | None = None
    """Whether to generate the response in the background."""
    previous_response_id: Name | None = None
    """The ID of the response that this one continues."""
    metadata: Annotated[Metadata, Field(max_length=MAX_METADATA)] | None = None
    """Up to 16 strings, which are part of the response."""
    truncation: Literal["auto", "disabled"] | None = None
    """What to do with a conversation that exceeds the context. It is always an error."""
    max_tool_calls: Annotated[Int, Field(ge=1)] | None = None
    """The maximum number of calls of tools that the server runs, of which there are none."""
    service_tier: Name | None = None
    """The service tier, which has no effect."""
    prompt_cache_key: Name | None = None
    """A name for requests with the same beginning, which the engine recognizes without it."""
    safety_identifier: Name | None = None
    """A name of the user, which has no effect."""
    user: Name | None = None
    """A name of the user, which has no effect."""
    session: SessionFields | None = None
    """The session that the request belongs to, and limits for all its requests together."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        """Reject unsupported fields, and name those of this API for those of chat requests."""
        if not isinstance(value, dict):
            return value
        present = [name for name, each in value.items() if each is not None]
        for name in present:
            if name in OTHER_NAMES:
                context = {"field": name, "hint": f" Use '{OTHER_NAMES[name]}' instead."}
                raise PydanticCustomError("unknown_field", "Unknown field", context)
            if name in UNSUPPORTED:
                context = {"field": name, "reason": "is not supported: remove it"}
                raise PydanticCustomError("field", "{reason}", context)
        return value

    @property
    def wants_logprobs(self) -> bool:
        """Whether the response has log probabilities."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)
