"""Translates requests of Anthropic's Messages API to chat requests."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic_core import to_json

from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.schemas.anthropic.blocks import (
    Block,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from proctor.server.schemas.anthropic.request import (
    InputMessage,
    InputTool,
    InputToolChoice,
    MessagesRequest,
    OutputFormat,
    PromptFields,
)
from proctor.server.schemas.budget import BudgetFields, Thinking
from proctor.server.schemas.messages import FunctionCall, Message, PriorThinking, TextPart, ToolCall
from proctor.server.schemas.sessions import session_names
from proctor.server.schemas.tools import (
    Function,
    FunctionChoice,
    JsonSchema,
    NamedTool,
    ResponseFormat,
    Tool,
)
from proctor.server.schemas.translated import TranslatedRequest

CLIENT_FIELDS = {
    "reasoning_effort": "output_config.effort",
    "response_format": "output_config.format",
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
}
"""The names in this API of the fields of chat requests that have other names there."""

BILLING_HEADER = "x-anthropic-billing-header"
"""The beginning of a system block of Claude Code that changes with each request. It is not part of
the prompt, where it would keep the engine from finding the rest in its prefix cache."""

ERROR_PREFIX = "Error: "
Role = Literal["system", "user", "assistant", "tool"]
CHOICES: dict[str, Literal["none", "auto", "required"]] = {
    "auto": "auto",
    "any": "required",
    "none": "none",
}


def to_prompt(request: PromptFields) -> TranslatedRequest:
    """Return the chat request whose prompt is the same."""
    messages, blocks = _to_messages(request)
    return TranslatedRequest.model_construct(
        model=request.model,
        messages=messages,
        thinking_blocks=blocks,
        tools=[_tool(tool) for tool in request.tools or () if tool.is_custom] or None,
    )


def to_chat(request: MessagesRequest) -> TranslatedRequest:
    """Return the chat request that means the same."""
    output, choice = request.output_config, request.tool_choice
    fields = dict(
        **_budget_fields(request),
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop=request.stop_sequences,
        stream=request.stream,
        event_names=True,
        tool_choice=None if choice is None else _tool_choice(choice),
        parallel_tool_calls=None if choice is None else not choice.disable_parallel_tool_use,
        response_format=None
        if output is None or output.format is None
        else _response_format(output.format),
        continue_final_message=request.messages[-1].role == "assistant" or None,
        reasoning_format=ReasoningFormat.HIDDEN
        if request.thinking is not None and request.thinking.display == "omitted"
        else ReasoningFormat.REASONING_CONTENT,
        session=request.session,
        names=tuple(session_names(request.model_extra or {})),
        ignored=tuple(_ignored(request)),
    )
    return to_prompt(request).model_copy(update=fields)


def _ignored(request: MessagesRequest) -> Iterator[str]:
    yield from request.ignored_fields()
    for index, tool in enumerate(request.tools or ()):
        if not tool.is_custom:
            yield f"tools[{index}]"


def _budget_fields(request: MessagesRequest) -> dict[str, Any]:
    """Return the fields that set the thinking budget.

    An effort does not affect the thinking if another field turns it off or limits it.
    """
    fields = {
        name: value
        for name in BudgetFields.model_fields
        if (value := getattr(request, name)) is not None
    }
    thinking = request.thinking
    effort = None if request.output_config is None else request.output_config.effort
    decided = thinking is not None and (
        thinking.type == "disabled" or thinking.budget_tokens is not None
    )
    if effort is not None and not decided:
        fields.setdefault("reasoning_effort", effort)
    return fields or {"thinking": Thinking(type="disabled")}


def _tool(tool: InputTool) -> Tool:
    function = Function.model_construct(
        name=tool.name,
        description=tool.description,
        parameters=tool.input_schema,
        strict=tool.strict,
    )
    return Tool.model_construct(type="function", function=function)


def _tool_choice(choice: InputToolChoice) -> Literal["none", "auto", "required"] | NamedTool:
    if choice.name is None or choice.type != "tool":
        return CHOICES[choice.type]
    function = FunctionChoice.model_construct(name=choice.name)
    return NamedTool.model_construct(type="function", function=function)


def _response_format(output_format: OutputFormat) -> ResponseFormat:
    schema = JsonSchema.model_construct(name="output", schema_=output_format.schema_)
    return ResponseFormat.model_construct(type="json_schema", json_schema=schema)


def _to_messages(
    request: PromptFields,
) -> tuple[list[Message], dict[int, tuple[PriorThinking, ...]]]:
    """Return the messages of the conversation, and their thinking blocks by index.

    The system prompt is the first message. Consecutive messages of one role are one message, as in
    Anthropic's API.
    """
    system = [block for block in request.system or () if not block.text.startswith(BILLING_HEADER)]
    messages = [_message("system", [block.text for block in system])] if system else []
    blocks: dict[int, tuple[PriorThinking, ...]] = {}
    for message in request.messages:
        for part in _split(message):
            if messages and part.role == messages[-1].role in ("user", "assistant"):
                part = _joined(messages.pop(), part)
            messages.append(part)
        if thinking := tuple(_thinking_blocks(message.content)):
            index = len(messages) - 1
            blocks[index] = blocks.get(index, ()) + thinking
    return messages, blocks


def _thinking_blocks(content: Sequence[Block]) -> Iterator[PriorThinking]:
    for block in content:
        match block:
            case ThinkingBlock():
                yield PriorThinking(block.thinking, block.signature)
            case RedactedThinkingBlock():
                yield PriorThinking("", block.data)


def _split(message: InputMessage) -> list[Message]:
    """Return a message as messages of the chat API, which has one for each tool result."""
    texts = [block.text for block in message.content if isinstance(block, TextBlock)]
    if message.role == "assistant":
        return [_assistant_message(texts, message.content)]
    results = [block for block in message.content if isinstance(block, ToolResultBlock)]
    if not results:
        return [_message(message.role, texts)]
    # Text beside tool results, such as reminders of Claude Code, does not begin a new turn.
    *others, last = results
    return [*(_tool_message(each) for each in others), _tool_message(last, texts)]


def _message(role: Role, texts: Sequence[str], **fields: Any) -> Message:
    parts = tuple(TextPart.model_construct(type="text", text=text) for text in texts if text)
    return Message.model_construct(role=role, content=parts, **fields)


def _tool_message(result: ToolResultBlock, texts: Sequence[str] = ()) -> Message:
    own = result.texts
    if result.is_error:
        own = [ERROR_PREFIX + "\n".join(own)]
    return _message("tool", [*own, *texts], tool_call_id=result.tool_use_id)


def _assistant_message(texts: Sequence[str], content: Sequence[Block]) -> Message:
    thoughts = [block.thinking for block in content if isinstance(block, ThinkingBlock)]
    calls = [_tool_call(block) for block in content if isinstance(block, ToolUseBlock)]
    return _message(
        "assistant",
        texts,
        reasoning_content="\n".join(filter(None, thoughts)) or None,
        tool_calls=calls or None,
    )


def _tool_call(block: ToolUseBlock) -> ToolCall:
    arguments = to_json(block.input).decode()
    function = FunctionCall.model_construct(name=block.name, arguments=arguments)
    return ToolCall.model_construct(id=block.id, type="function", function=function)


def _joined(first: Message, second: Message) -> Message:
    """Return two messages of one role as one."""
    thoughts = [each for each in (first.reasoning_content, second.reasoning_content) if each]
    return first.model_copy(
        update={
            "content": (*first.content, *second.content),
            "reasoning_content": "\n".join(thoughts) or None,
            "tool_calls": [*(first.tool_calls or ()), *(second.tool_calls or ())] or None,
        }
    )
