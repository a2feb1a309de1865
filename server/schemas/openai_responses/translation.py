"""Translates requests of OpenAI's Responses API to chat requests."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from proctor.server.engines.tool_calls import ToolChoice as EngineToolChoice
from proctor.server.errors import BadRequest
from proctor.server.schemas.budget import BudgetFields
from proctor.server.schemas.openai_responses.conversation import to_messages
from proctor.server.schemas.openai_responses.items import Item, ItemReference, OtherItem
from proctor.server.schemas.openai_responses.request import INCLUDED, ResponsesRequest
from proctor.server.schemas.openai_responses.tool_functions import ignored_tools, to_functions
from proctor.server.schemas.openai_responses.tool_names import ToolOrigin
from proctor.server.schemas.openai_responses.tools import TextFormat, ToolChoice
from proctor.server.schemas.sessions import session_names
from proctor.server.schemas.tools import (
    FunctionChoice,
    JsonSchema,
    NamedTool,
    ResponseFormat,
    choose_tools,
)
from proctor.server.schemas.translated import TranslatedRequest

CLIENT_FIELDS = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "response_format": "text.format",
}
"""The names in this API of the fields of chat requests that have other names there."""

DEFAULT_SERVICE_TIERS = (None, "auto", "default")


class ResponsesChatRequest(TranslatedRequest):
    """A chat request that means the same as a request of the Responses API.

    Attributes:
        client_request: the client's request.
        origins: the tools that the functions were made of, by the names of the functions.
        allowed: the names of the functions that may be called; None for all. The prompt has all
            tools anyway, so that its beginning stays the same.
        stored_input: the items of the whole conversation as JSON, to be stored with the response;
            None if it is not stored.
    """

    client_request: ResponsesRequest
    origins: Mapping[str, ToolOrigin] = {}
    allowed: frozenset[str] | None = None
    stored_input: bytes | None = None

    @property
    def client_fields(self) -> Mapping[str, str]:
        """The client's names of the fields of chat requests."""
        return CLIENT_FIELDS | {
            f"tools[{index}].function": origin.path
            for index, origin in enumerate(self.origins.values())
        }

    def resolve_tool_choice(self) -> EngineToolChoice | None:
        tools = [
            tool
            for tool in self.tools or ()
            if self.allowed is None or tool.function.name in self.allowed
        ]
        return choose_tools(
            tools,
            self.tool_choice,
            self.constraint(),
            parallel=self.parallel_tool_calls is not False,
        )


class Selection(NamedTuple):
    """The tool choice of a chat request.

    Attributes:
        choice: whether to call functions, or which one.
        allowed: the names of the functions that may be called; None for all.
    """

    choice: Literal["none", "auto", "required"] | NamedTool | None
    allowed: frozenset[str] | None = None


def to_chat(request: ResponsesRequest, earlier: Sequence[Item] = ()) -> ResponsesChatRequest:
    """Return the chat request that means the same.

    Args:
        request: the client's request.
        earlier: the items of the conversation that the request continues.

    Raises:
        BadRequest: if the input has nothing that the model sees, or `tool_choice` names a tool that
            is not in `tools`.
    """
    messages, thinking_blocks = to_messages(request.instructions, (*earlier, *request.input))
    if not messages and not any(isinstance(item, ItemReference) for item in request.input):
        raise BadRequest("'input' has no item that this model supports.", param="input")
    functions, origins = to_functions(request.tools or ())
    by_name = {
        function.function.name: origin for function, origin in zip(functions, origins, strict=True)
    }
    selection = _select_tools(request.tool_choice, by_name)
    text_format = None if request.text is None else request.text.format
    return ResponsesChatRequest.model_construct(
        client_request=request,
        model=request.model,
        messages=messages,
        thinking_blocks=thinking_blocks,
        tools=functions or None,
        origins=by_name,
        tool_choice=selection.choice,
        allowed=selection.allowed,
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=None if text_format is None else _response_format(text_format),
        max_completion_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        stop=request.stop,
        logprobs=request.wants_logprobs or None,
        top_logprobs=request.top_logprobs,
        stream=request.stream or request.background,
        event_names=True,
        include_reasoning=request.include_reasoning,
        session=request.session,
        names=tuple(session_names(request.present_fields())),
        ignored=tuple(_ignored(request, origins)),
        **_budget_fields(request),
    )


def _budget_fields(request: ResponsesRequest) -> dict[str, Any]:
    """Return the fields that set the thinking budget; without any, the server's default applies."""
    return {name: getattr(request, name) for name in BudgetFields.model_fields}


def _select_tools(
    choice: Literal["none", "auto", "required"] | ToolChoice | None,
    origins: Mapping[str, ToolOrigin],
) -> Selection:
    """Return the tool choice of the chat request.

    Raises:
        BadRequest: if the choice names a tool that is not in `tools`.
    """
    if not isinstance(choice, ToolChoice):
        return Selection(choice)
    allowed: list[str] = []
    for index, name in enumerate(choice.allowed):
        found = [
            each
            for each, origin in origins.items()
            if origin.is_named_by(name.type, name.name, name.namespace)
        ]
        if not found:
            field = "tool_choice" if choice.tools is None else f"tool_choice.tools[{index}]"
            raise BadRequest(
                f"'{field}' names the {name.type} tool '{name.name}', which is not in 'tools', or "
                "not supported.",
                param=field,
            )
        allowed += found
    if choice.tools is not None:
        return Selection(choice.mode, frozenset(allowed))
    function = FunctionChoice.model_construct(name=allowed[0])
    return Selection(NamedTool.model_construct(type="function", function=function))


def _response_format(text_format: TextFormat) -> ResponseFormat:
    if text_format.schema_ is None:
        return ResponseFormat.model_construct(type=text_format.type)
    schema = JsonSchema.model_construct(name="output", schema_=text_format.schema_)
    return ResponseFormat.model_construct(type="json_schema", json_schema=schema)


def _ignored(request: ResponsesRequest, origins: Sequence[ToolOrigin]) -> Iterator[str]:
    """Yield the paths of what has no effect."""
    yield from request.ignored_fields()
    for index, item in enumerate(request.input):
        if isinstance(item, OtherItem):
            yield f"input[{index}]"
    yield from ignored_tools(request.tools or (), origins)
    for index, name in enumerate(request.include or ()):
        if name not in INCLUDED:
            yield f"include[{index}]"
    if request.truncation == "auto":
        yield "truncation"
    if request.max_tool_calls is not None:
        yield "max_tool_calls"
    if request.service_tier not in DEFAULT_SERVICE_TIERS:
        yield "service_tier"
