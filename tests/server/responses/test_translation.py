"""The translation of requests of the Responses API to chat requests."""

from typing import Any

import orjson
import pytest

from proctor.server.errors import BadRequest
from proctor.server.schemas.messages import PriorThinking
from proctor.server.schemas.openai_responses.progress import is_progress, progress_line
from proctor.server.schemas.openai_responses.request import ResponsesRequest
from proctor.server.schemas.openai_responses.translation import ResponsesChatRequest, to_chat
from proctor.server.schemas.parsing import parse

USER = {"role": "user", "content": "Go on."}
READ = {"type": "function", "name": "read", "parameters": {"type": "object"}}
PATCH = {"type": "custom", "name": "patch", "description": "Patches."}
AGENTS = {
    "type": "namespace",
    "name": "agents",
    "description": "Helpers.",
    "tools": [{**READ, "name": "spawn"}, {**PATCH, "name": "ask"}, {"type": "mcp"}],
}
CALL = {"type": "function_call", "call_id": "1", "name": "read", "arguments": '{"path": "a"}'}
OUTPUT = {"type": "function_call_output", "call_id": "1", "output": "text"}
NOTE = "[An image was omitted: this model accepts text only.]"


def translate(**fields: Any) -> ResponsesChatRequest:
    return to_chat(parse(orjson.dumps({"input": [USER], **fields}), ResponsesRequest))


def plain(**fields: Any) -> list[dict[str, Any]]:
    return [message.to_plain() for message in translate(**fields).messages]


def ignored(**fields: Any) -> list[str]:
    return [*translate(**fields).ignored_fields()]


def reasoning(text: str, record: str | None = None, *, summary: str = "") -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": summary}] if summary else []
    content = [{"type": "reasoning_text", "text": text}] if text else None
    return {"type": "reasoning", "summary": parts, "content": content, "encrypted_content": record}


def test_a_string_is_a_users_message() -> None:
    assert plain(input="hi") == [{"role": "user", "content": "hi"}]


def test_instructions_and_developers_are_one_system_prompt() -> None:
    conversation = [
        {"type": "message", "role": "developer", "content": "b"},
        {"role": "system", "content": [{"type": "input_text", "text": "c"}]},
        USER,
        {"role": "developer", "content": "Now be brief."},
    ]

    assert plain(input=conversation, instructions="a") == [
        {"role": "system", "content": "a\nb\nc"},
        {"role": "user", "content": "Go on."},
        {"role": "system", "content": "Now be brief."},
    ]


def test_the_items_of_a_response_are_one_message() -> None:
    answer = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "I read.", "annotations": []}],
    }
    other = {**CALL, "call_id": "2"}
    items = [USER, reasoning("Hm.", "record"), answer, CALL, other, OUTPUT]
    request = translate(input=[*items, {**OUTPUT, "call_id": "2", "output": "more"}])

    user, assistant, first, second = (message.to_plain() for message in request.messages)
    assert user == USER
    assert (assistant["reasoning"], assistant["content"]) == ("Hm.", "I read.")
    assert [call["id"] for call in assistant["tool_calls"]] == ["1", "2"]
    assert assistant["tool_calls"][0]["function"] == {"name": "read", "arguments": {"path": "a"}}
    assert first == {"role": "tool", "content": "text", "tool_call_id": "1"}
    assert second == {"role": "tool", "content": "more", "tool_call_id": "2"}
    assert request.prior_thinking == {1: (PriorThinking("Hm.", "record"),)}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (reasoning("a"), PriorThinking("a")),
        (reasoning("", "r", summary="a"), PriorThinking("a", "r")),
        (reasoning("a", summary="b"), PriorThinking("a")),
        (reasoning("", "r", summary=progress_line(1234, 9999)), PriorThinking("", "r")),
        (reasoning("", "r"), PriorThinking("", "r")),
    ],
)
def test_the_thinking_of_earlier_responses(item: dict[str, Any], expected: PriorThinking) -> None:
    assert translate(input=[USER, item]).prior_thinking == {1: (expected,)}


@pytest.mark.parametrize("tokens", [0, 1, 1234])
@pytest.mark.parametrize("maximum", [None, 0, 1234567])
def test_progress_is_recognized(tokens: int, maximum: int | None) -> None:
    line = progress_line(tokens, maximum)

    assert is_progress(line)
    assert is_progress(f"{line}\n{line}")
    assert not is_progress(f"{line} And then?")
    assert not is_progress("")


def test_calls_of_custom_tools_and_namespaces_have_their_functions_names() -> None:
    custom = {"type": "custom_tool_call", "call_id": "1", "name": "patch", "input": '"\n'}
    shell = {"type": "local_shell_call", "call_id": "2", "action": {"command": ["ls"]}}
    items = [
        *(USER, custom, {**CALL, "namespace": "agents"}, shell),
        {"type": "custom_tool_call_output", "call_id": "1", "output": "done"},
        {"type": "local_shell_call_output", "id": "2", "output": "a b"},
    ]

    _, assistant, patched, listed = plain(input=items)
    assert [call["function"] for call in assistant["tool_calls"]] == [
        {"name": "patch", "arguments": {"input": '"\n'}},
        {"name": "agents__read", "arguments": {"path": "a"}},
        {"name": "local_shell", "arguments": {"command": ["ls"]}},
    ]
    assert (patched["content"], patched["tool_call_id"]) == ("done", "1")
    assert (listed["content"], listed["tool_call_id"]) == ("a b", "2")


def test_images_in_outputs_of_tools_are_replaced_by_a_note() -> None:
    image = {"type": "input_image", "image_url": "data:"}
    output = {**OUTPUT, "output": [{"type": "input_text", "text": "See:"}, image]}

    assert plain(input=[USER, CALL, output])[-1]["content"] == f"See:\n{NOTE}"


def test_items_that_the_model_does_not_see_are_listed() -> None:
    items = [USER, {"type": "web_search_call", "id": "ws_1"}, {"type": "compaction"}]

    assert plain(input=items) == [USER]
    assert ignored(input=items) == ["input[1].id", "input[1]", "input[2]"]


def test_nothing_that_changes_with_each_request_is_in_the_prompt() -> None:
    one = plain(prompt_cache_key="a", client_metadata={"turn": "1"}, user="x", metadata={"a": "b"})

    assert one == plain(prompt_cache_key="b", client_metadata={"turn": "2"}, user="y")


def test_tools_become_functions() -> None:
    request = translate(tools=[READ, PATCH, AGENTS, {"type": "web_search"}])

    functions = [tool.to_plain()["function"] for tool in request.tools or ()]
    assert [function["name"] for function in functions] == [
        *("read", "patch", "agents__spawn", "agents__ask")
    ]
    assert functions[1]["description"] == "Patches."
    assert functions[1]["parameters"]["properties"] == {"input": {"type": "string"}}
    assert functions[2]["description"] == "Helpers."
    assert [*request.ignored_fields()] == ["tools[2].tools[2]", "tools[3]"]


def test_a_regular_expression_of_a_custom_tool_is_enforced() -> None:
    grammar = {"type": "grammar", "syntax": "regex", "definition": "[a-z]+"}
    request = translate(tools=[{**PATCH, "format": grammar}])

    (tool,) = request.tools or []
    function = tool.to_plain()["function"]
    assert function["strict"]
    assert function["parameters"]["properties"]["input"]["pattern"] == "[a-z]+"
    assert [*request.ignored_fields()] == []


def test_a_lark_grammar_of_a_custom_tool_is_shown_to_the_model_and_listed() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
    request = translate(tools=[{**PATCH, "format": grammar}])

    (tool,) = request.tools or []
    assert 'start: "a"' in tool.to_plain()["function"]["description"]
    assert [*request.ignored_fields()] == ["tools[0].format"]


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [
        ("auto", "auto", ["read", "patch", "agents__spawn", "agents__ask"]),
        ("required", "required", ["read", "patch", "agents__spawn", "agents__ask"]),
        ({"type": "function", "name": "read"}, "named", ["read"]),
        ({"type": "custom", "name": "patch"}, "named", ["patch"]),
        ({"type": "function", "name": "spawn", "namespace": "agents"}, "named", ["agents__spawn"]),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [
                    {"type": "namespace", "name": "agents"},
                    {"type": "custom", "name": "patch"},
                ],
            },
            "required",
            ["patch", "agents__spawn", "agents__ask"],
        ),
    ],
)
def test_tool_choice(choice: Any, mode: str, names: list[str]) -> None:
    request = translate(tools=[READ, PATCH, AGENTS], tool_choice=choice)

    resolved = request.resolve_tool_choice()
    assert resolved is not None
    assert resolved.mode == mode
    if mode == "named":
        assert [resolved.name] == names
    else:
        assert [tool["function"]["name"] for tool in resolved.tools] == names
    assert len(request.tools or ()) == 4, "the prompt has all tools"


def test_the_format_of_the_answer() -> None:
    schema = {"type": "object"}
    request = translate(text={"format": {"type": "json_schema", "name": "x", "schema": schema}})

    constraint = request.constraint()
    assert constraint is not None
    assert constraint.value == schema


def test_what_has_no_effect_is_listed() -> None:
    fields = {
        "include": ["reasoning.encrypted_content", "web_search_call.results"],
        "truncation": "auto",
        "service_tier": "flex",
        "max_tool_calls": 3,
        "text": {"verbosity": "low"},
        "client_metadata": {},
    }

    assert ignored(**fields) == [
        *("client_metadata", "text.verbosity", "include[1]"),
        *("truncation", "max_tool_calls", "service_tier"),
    ]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"input": []}, "input", "at least 1 item"),
        ({"input": [{"type": "compaction"}]}, "input", "no item"),
        ({"input": [{"type": {}}]}, "input[0].type", "valid string"),
        ({"input": [{**OUTPUT, "output": [{"type": {}}]}]}, "input[0].output[0].type", "string"),
        ({"tools": [{"type": []}]}, "tools[0].type", "valid string"),
        ({"messages": [USER]}, "messages", "Use 'input'"),
        ({"max_tokens": 5}, "max_tokens", "Use 'max_output_tokens'"),
        ({"conversation": "c"}, "conversation", "not supported"),
        ({"prompt": {"id": "p"}}, "prompt", "not supported"),
        ({"max_thinking": 5}, "max_thinking", "Unknown field"),
        ({"reasoning": {"budget": 5}}, "reasoning.budget", "Unknown field"),
        ({"metadata": dict.fromkeys(map(str, range(17)), "")}, "metadata", "at most 16"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            "text only",
        ),
        ({"input": [{"type": "item_reference"}]}, "input[0].id", "Missing required field"),
        (
            {"tools": [{"type": "function", "function": {"name": "x"}}]},
            "tools[0].name",
            "Missing required field",
        ),
        (
            {"tools": [READ], "tool_choice": {"type": "function", "name": "write"}},
            "tool_choice",
            "'write'",
        ),
        ({"tools": [READ], "tool_choice": {"type": "mcp"}}, "tool_choice.type", "'function'"),
        (
            {
                "tools": [READ],
                "tool_choice": {
                    "type": "allowed_tools",
                    "tools": [{"type": "function", "name": "read"}, {"type": "mcp"}],
                },
            },
            "tool_choice.tools[1]",
            "mcp",
        ),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "required"),
    ],
)
def test_invalid_requests(fields: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        translate(**fields)

    assert caught.value.param == param
    assert said in str(caught.value)
