"""The translation of requests of the Messages API to chat requests."""

from typing import Any

import orjson
import pytest

from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.errors import BadRequest
from proctor.server.schemas.anthropic.request import MessagesRequest
from proctor.server.schemas.anthropic.translation import to_chat
from proctor.server.schemas.messages import PriorThinking
from proctor.server.schemas.parsing import parse
from proctor.server.schemas.translated import TranslatedRequest

USER = {"role": "user", "content": "Go on."}
TOOL = {"name": "read", "input_schema": {"type": "object"}}


def translate(*messages: dict[str, Any], **fields: Any) -> TranslatedRequest:
    body = {"model": "m", "max_tokens": 100, "messages": messages or [USER], **fields}
    return to_chat(parse(orjson.dumps(body), MessagesRequest))


def plain(request: TranslatedRequest) -> list[dict[str, Any]]:
    return [message.to_plain() for message in request.messages]


def blocks(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": content}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def thinking(content: str, signature: str = "s") -> dict[str, Any]:
    return {"type": "thinking", "thinking": content, "signature": signature}


def use(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"id-{name}", "name": name, "input": arguments}


def result(name: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": f"id-{name}", "content": content, **fields}


@pytest.mark.parametrize("system", ["Be brief.", [text("Be brief.")]])
def test_the_system_prompt_is_the_first_message(system: Any) -> None:
    assert plain(translate(system=system)) == [
        {"role": "system", "content": "Be brief."},
        USER,
    ]


def test_the_billing_header_is_not_part_of_the_prompt() -> None:
    header = text("x-anthropic-billing-header: cc_version=2.1; cch=0a1b2;")

    assert plain(translate(system=[header, text("Be brief.")])) == plain(
        translate(system="Be brief.")
    )
    assert plain(translate(system=[header])) == [USER]


def test_a_turn_with_tool_calls() -> None:
    request = translate(
        USER,
        blocks("assistant", thinking("Hm."), text("I look."), use("read", path="a")),
        blocks("user", result("read", "A")),
        blocks("assistant", thinking("So."), use("read", path="b"), use("list")),
        blocks("user", result("read", [text("B"), text("C")]), result("list", "D")),
    )

    assert plain(request)[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning": "Hm.",
            "tool_calls": [
                {
                    "id": "id-read",
                    "type": "function",
                    "function": {"name": "read", "arguments": {"path": "a"}},
                }
            ],
        },
        {"role": "tool", "content": "A", "tool_call_id": "id-read"},
        {
            "role": "assistant",
            "content": "",
            "reasoning": "So.",
            "tool_calls": [
                {
                    "id": "id-read",
                    "type": "function",
                    "function": {"name": "read", "arguments": {"path": "b"}},
                },
                {
                    "id": "id-list",
                    "type": "function",
                    "function": {"name": "list", "arguments": {}},
                },
            ],
        },
        {"role": "tool", "content": "B\nC", "tool_call_id": "id-read"},
        {"role": "tool", "content": "D", "tool_call_id": "id-list"},
    ]


def test_text_beside_tool_results_does_not_begin_a_new_turn() -> None:
    request = translate(
        USER,
        blocks("assistant", use("read")),
        blocks("user", result("read", "A"), text("<system-reminder>")),
    )

    assert [message["role"] for message in plain(request)] == ["user", "assistant", "tool"]
    assert plain(request)[-1]["content"] == "A\n<system-reminder>"


def test_failed_tools_and_their_images() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    request = translate(
        USER,
        blocks("assistant", use("read")),
        blocks("user", result("read", [text("No such file."), image], is_error=True)),
    )

    assert plain(request)[-1]["content"] == (
        "Error: No such file.\n[An image was omitted: this model accepts text only.]"
    )


def test_consecutive_messages_of_one_role_are_one_message() -> None:
    request = translate(
        USER,
        {"role": "user", "content": "Now."},
        blocks("assistant", thinking("A."), text("One.")),
        blocks("assistant", thinking("B."), text("Two.")),
        USER,
    )

    assert plain(request) == [
        {"role": "user", "content": "Go on.\nNow."},
        {"role": "assistant", "content": "One.\nTwo.", "reasoning": "A.\nB."},
        USER,
    ]


def test_a_system_message_keeps_its_place() -> None:
    request = translate(USER, {"role": "system", "content": "Mind the time."})

    assert plain(request)[-1] == {"role": "system", "content": "Mind the time."}


def test_thinking_blocks_keep_their_records() -> None:
    request = translate(
        USER,
        blocks("assistant", thinking("Hm.", "one"), use("read")),
        blocks("user", result("read", "A")),
        blocks("assistant", {"type": "redacted_thinking", "data": "two"}),
        blocks("assistant", thinking("So.", "three")),
        system="Be brief.",
    )

    assert request.prior_thinking == {
        2: (PriorThinking("Hm.", "one"),),
        4: (PriorThinking("", "two"), PriorThinking("So.", "three")),
    }


def test_without_budget_fields_the_model_does_not_think() -> None:
    thinking_field = translate().thinking

    assert thinking_field is not None
    assert thinking_field.type == "disabled"


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"thinking": {"type": "adaptive"}}, {"thinking", "reasoning_effort"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 8}}, {"thinking"}),
        ({"thinking": {"type": "disabled"}}, {"thinking"}),
        ({"max_thinking_tokens": 8}, {"max_thinking_tokens", "reasoning_effort"}),
        ({}, {"reasoning_effort"}),
    ],
)
def test_an_effort_does_not_contradict_a_budget(fields: dict[str, Any], kept: set[str]) -> None:
    request = translate(output_config={"effort": "high"}, **fields)

    budget_fields = {"thinking", "reasoning_effort", "max_thinking_tokens"}
    assert request.present_fields().keys() & budget_fields == kept


@pytest.mark.parametrize("display", ["summarized", "updates", "of a later version"])
def test_other_ways_to_display_thinking_show_it(display: str) -> None:
    thinking = {"type": "adaptive", "display": display}

    assert translate(thinking=thinking).reasoning_format is ReasoningFormat.REASONING_CONTENT


def test_omitted_thinking_is_hidden() -> None:
    shown = translate(thinking={"type": "adaptive"})
    omitted = translate(thinking={"type": "adaptive", "display": "omitted"})

    assert shown.reasoning_format is ReasoningFormat.REASONING_CONTENT
    assert omitted.reasoning_format is ReasoningFormat.HIDDEN


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ("auto", True)),
        ({"type": "any", "disable_parallel_tool_use": True}, ("required", False)),
        ({"type": "none"}, (None, None)),
        ({"type": "tool", "name": "read"}, ("named", True)),
    ],
)
def test_tool_choices(choice: dict[str, Any], expected: Any) -> None:
    resolved = translate(tools=[TOOL], tool_choice=choice).resolve_tool_choice()

    found = (None, None) if resolved is None else (resolved.mode, resolved.parallel)
    assert found == expected


def test_tools_of_anthropics_servers_are_ignored() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    request = translate(tools=[TOOL, search], context_management={"edits": []})

    (kept,) = request.tools or []
    assert kept.function.name == "read"
    assert {*request.ignored_fields()} == {"context_management", "tools[1].max_uses", "tools[1]"}


def test_an_assistants_last_message_is_continued() -> None:
    assert translate(USER, {"role": "assistant", "content": "The"}).continue_final_message
    assert not translate(USER).continue_final_message


def test_the_schema_of_the_answer() -> None:
    schema = {"type": "object"}
    constraint = translate(
        output_config={"format": {"type": "json_schema", "schema": schema}}
    ).constraint()

    assert constraint is not None
    assert constraint.value == schema


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [blocks("user", {"type": "image"})]}, "messages[0].content[0].type"),
        ({"messages": [blocks("user", {"type": "document"})]}, "messages[0].content[0].type"),
        ({"messages": [blocks("user", {"type": "text"})]}, "messages[0].content[0].text"),
        ({"messages": [blocks("user", {"type": 5})]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [{"name": "a b"}]}, "tools[0].name"),
        ({"thinking": {"type": "enabled", "budget": 5}}, "thinking.budget"),
        ({"thinking_tokens": 5}, "thinking_tokens"),
        ({"output_config": {"effort": "extreme"}}, "output_config.effort"),
    ],
)
def test_errors_name_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        translate(**fields)

    assert raised.value.param == param
    assert param in str(raised.value)
