from typing import Any

import httpx
import pytest

from proctor.server.engines.fake import BYTES, END_TURN, THINK, TURN, FakeEngine
from proctor.server.schemas.completions import MAX_TOKENS
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look"}}


async def post(path: str, fields: Any, **settings: Any) -> httpx.Response:
    async with client(FakeEngine(context_length=200), aliases=["mine"], **settings) as http:
        return await http.post(path, json=fields)


async def test_a_prompt() -> None:
    answer = (await post("/tokenize", {"model": "fake", "prompt": "é<think>"})).json()

    tokens = [*"é".encode(), THINK]
    assert answer == {"count": 3, "max_model_len": 200, "tokens": tokens, "token_strs": None}


async def test_token_strings() -> None:
    answer = await post("/tokenize", {"prompt": "a<think>", "return_token_strs": True})

    assert answer.json()["token_strs"] == ["a", "<think>"]


@pytest.mark.parametrize(
    "fields", [{}, {"tools": [TOOL]}, {"chat_template_kwargs": {"enable_thinking": False}}]
)
async def test_messages_give_the_prompt_of_a_chat(fields: dict[str, Any]) -> None:
    engine = FakeEngine()
    if "tools" in fields:
        fields |= {"tool_choice": "none"}
    async with client(engine) as http:
        chat = await http.post(CHAT, json=body(**fields))
        fields.pop("tool_choice", None)
        answer = (await http.post("/tokenize", json={"messages": [USER], **fields})).json()

    assert chat.status_code == 200
    assert answer["tokens"] == [*engine.jobs[0].prompt_ids]
    assert answer["count"] == len(answer["tokens"])


async def test_messages_without_a_generation_prompt() -> None:
    fields = {"messages": [USER], "add_generation_prompt": False, "model": "mine"}

    answer = await post("/tokenize", fields)

    assert answer.json()["tokens"] == [TURN, *b"user\nhi", END_TURN, *b"\n"]


async def test_special_tokens_in_messages_are_escaped() -> None:
    request = {"messages": [{"role": "user", "content": "<think>"}], "add_generation_prompt": False}

    assert THINK not in (await post("/tokenize", request)).json()["tokens"]


@pytest.mark.parametrize("text", ["", "one ☃ two", "<think>é</think>", "a\0b"])
async def test_detokenize_reverses_tokenize(text: str) -> None:
    tokens = (await post("/tokenize", {"prompt": text})).json()["tokens"]

    assert (await post("/detokenize", {"tokens": tokens})).json() == {"prompt": text}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [USER]}, "prompt"),
        ({"messages": []}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [USER], "add_special_tokens": True}, "add_special_tokens"),
        ({"messages": [USER], "continue_final_message": True}, "continue_final_message"),
        ({"messages": [USER], "chat_template": "{{ 1 }}"}, "chat_template"),
        ({"messages": [USER], "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x"),
        ({"prompt": "a", "return_token_strs": "yes"}, "return_token_strs"),
        ({"prompt": "x" * 200 * 65}, "prompt"),
        ({"messages": [{"role": "user", "content": "x" * 200 * 65}]}, "messages"),
    ],
)
async def test_invalid_tokenize_requests_name_the_field(fields: dict[str, Any], param: str) -> None:
    assert_error(await post("/tokenize", fields), 400, param)


@pytest.mark.parametrize(
    ("tokens", "param"),
    [
        (None, "tokens"),
        ("a", "tokens"),
        ([-1], "tokens[0]"),
        ([0, BYTES + 4], "tokens[1]"),
        ([0, 10**30], "tokens[1]"),
        ([1.5], "tokens[0]"),
        (["1"], "tokens[0]"),
        ([True], "tokens[0]"),
        ([1] * (MAX_TOKENS + 1), "tokens"),
    ],
)
async def test_invalid_detokenize_requests_name_the_field(tokens: Any, param: str) -> None:
    assert_error(await post("/detokenize", {"tokens": tokens}), 400, param)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_other_errors(path: str) -> None:
    fields = {"prompt": "a"} if path == "/tokenize" else {"tokens": [1]}

    assert_error(await post(path, {**fields, "model": "other"}), 404, "model")
    assert_error(await post(path, fields, limits={"max_body_bytes": 5}), 413, None)
    assert_error(await post(path, []), 400, None)
    assert_error(await post(path, {**fields, "tokns": 1}), 400, "tokns")
