"""Translates tools to functions."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from proctor.server.schemas.openai_responses.tool_names import INPUT, ToolOrigin, flat_name
from proctor.server.schemas.openai_responses.tools import (
    CustomTool,
    FunctionTool,
    NamespaceTool,
    Tool,
)
from proctor.server.schemas.tools import Function
from proctor.server.schemas.tools import Tool as ChatTool


def to_functions(tools: Sequence[Tool]) -> tuple[list[ChatTool], list[ToolOrigin]]:
    """Return the functions that the tools become, and the origin of each.

    Tools of other types become none.
    """
    functions: list[ChatTool] = []
    origins: list[ToolOrigin] = []
    for path, tool, namespace in _flatten(tools):
        name = None if namespace is None else namespace.name
        description = tool.description
        is_first = not origins or origins[-1].namespace != name
        if namespace is not None and is_first:
            description = _joined(namespace.description, description)
        origins.append(ToolOrigin(path, tool.name, name, isinstance(tool, CustomTool)))
        functions.append(_function(tool, flat_name(tool.name, name), description))
    return functions, origins


def ignored_tools(tools: Sequence[Tool], origins: Collection[ToolOrigin]) -> Iterator[str]:
    """Yield the paths of what the model does not see, or what is not enforced."""
    paths = {origin.path for origin in origins}
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if isinstance(tool, NamespaceTool):
            inner = (f"{path}.tools[{each}]" for each in range(len(tool.tools)))
            yield from (each for each in inner if each not in paths)
        elif path not in paths:
            yield path
    yield from (
        f"{path}.format"
        for path, tool, _ in _flatten(tools)
        if isinstance(tool, CustomTool) and tool.format is not None and tool.format.lark
    )


def _flatten(
    tools: Sequence[Tool],
) -> Iterator[tuple[str, FunctionTool | CustomTool, NamespaceTool | None]]:
    """Yield the path of each tool that becomes a function, the tool, and its namespace."""
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if isinstance(tool, FunctionTool | CustomTool):
            yield path, tool, None
        elif isinstance(tool, NamespaceTool):
            for position, inner in enumerate(tool.tools):
                if isinstance(inner, FunctionTool | CustomTool):
                    yield f"{path}.tools[{position}]", inner, tool


def _function(tool: FunctionTool | CustomTool, name: str, description: str | None) -> ChatTool:
    if isinstance(tool, CustomTool):
        return _custom_function(tool, name, description)
    return _chat_tool(name, description, tool.parameters, tool.strict)


def _custom_function(tool: CustomTool, name: str, description: str | None) -> ChatTool:
    """Return a function of one string. Its schema enforces a regular expression."""
    schema: dict[str, Any] = {"type": "string"}
    pattern = None if tool.format is None else tool.format.pattern
    if pattern is not None:
        schema["pattern"] = pattern
    if tool.format is not None and tool.format.lark:
        grammar = f"'{INPUT}' must match this Lark grammar:\n{tool.format.lark}"
        description = _joined(description, grammar)
    parameters = {
        "type": "object",
        "properties": {INPUT: schema},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return _chat_tool(name, description, parameters, pattern is not None or None)


def _chat_tool(
    name: str,
    description: str | None,
    parameters: dict[str, Any] | None,
    strict: bool | None,
) -> ChatTool:
    function = Function.model_construct(
        name=name, description=description, parameters=parameters, strict=strict
    )
    return ChatTool.model_construct(type="function", function=function)


def _joined(*texts: str | None) -> str | None:
    return "\n\n".join(filter(None, texts)) or None
