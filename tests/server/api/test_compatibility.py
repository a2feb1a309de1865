"""Requests for other servers are accepted, and ignored fields are listed."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.schemas.unsupported import MAX_LISTED, as_header
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client, merge_deltas, parse_events

USER = {"role": "user", "content": "hi"}
COMPLETIONS = "/v1/completions"
LISTED = "x-ignored-fields"


def call(**more: Any) -> dict[str, Any]:
    return {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, **more}


async def post(fields: dict[str, Any], path: str = CHAT, **overrides: Any) -> httpx.Response:
    async with client(FakeEngine(Script(("hm",), "42")), **overrides) as http:
        return await http.post(path, json=fields)


HISTORY = [
    {**USER, "created_at": 3},
    {
        "role": "assistant",
        "content": None,
        "parsed": {"a": 1},
        "refusal": None,
        "audio": None,
        "function_call": None,
        "annotations": [],
        "prefix": True,
        "reasoning_content": "Hm.",
        "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}],
        "thinking_blocks": [{"type": "thinking", "thinking": "Hm."}],
        "provider_specific_fields": {"x": None},
        "tool_calls": [
            call(
                index=0,
                extra_content={"google": {"thought_signature": "x"}},
                function={"name": "f", "arguments": "{}", "parsed_arguments": {"b": 2}},
            )
        ],
    },
    {
        "role": "tool",
        "tool_call_id": "a",
        "is_error": False,
        "content": [{"type": "text", "text": "3", "cache_control": {"type": "ephemeral"}}],
    },
]
ADDED = [
    "messages[0].created_at",
    "messages[1].parsed",
    "messages[1].annotations",
    "messages[1].prefix",
    "messages[1].reasoning_details",
    "messages[1].thinking_blocks",
    "messages[1].provider_specific_fields",
    "messages[1].tool_calls[0].index",
    "messages[1].tool_calls[0].extra_content",
    "messages[1].tool_calls[0].function.parsed_arguments",
    "messages[2].is_error",
    "messages[2].content[0].cache_control",
]


@pytest.mark.parametrize("path", [CHAT, "/v1/route", "/tokenize"])
async def test_members_that_clients_add_to_a_history_are_ignored_and_named(path: str) -> None:
    fields = {"messages": HISTORY} if path == "/tokenize" else body(messages=HISTORY)

    response = await post(fields, path)

    assert response.status_code == 200, response.text
    assert response.headers[LISTED].split(", ") == ADDED


async def test_ignored_members_do_not_reach_the_prompt() -> None:
    function = {"name": "f", "parameters": {"type": "object"}}
    tool = {"type": "function", "function": function}
    marked = {**tool, "cache_control": {}, "function": {**function, "defer_loading": True}}
    turn = {"role": "assistant", "content": "so", "tool_calls": [call()]}
    plain = [USER, turn]
    added = [{**USER, "id": 3}, {**turn, "parsed": 1, "tool_calls": [call(index=1)]}]

    one = await post({"messages": plain, "tools": [tool]}, "/tokenize")
    other = await post({"messages": added, "tools": [marked]}, "/tokenize")

    assert one.json() == other.json()
    listed = ["messages[0].id", "messages[1].parsed", "messages[1].tool_calls[0].index"]
    listed += ["tools[0].cache_control", "tools[0].function.defer_loading"]
    assert other.headers[LISTED].split(", ") == listed
    assert LISTED not in one.headers


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "audio": {"id": "x"}}, "messages[0].audio"),
        ({"role": "assistant", "refusal": "no"}, "messages[0].refusal"),
        ({"role": "user", "contnt": "hi"}, "messages[0].content"),
        (
            {"role": "assistant", "tool_calls": [call(type="custom")]},
            "messages[0].tool_calls[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages[0].content[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "blob", "text": "x"}]},
            "messages[0].content[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "text", "txt": "x"}]},
            "messages[0].content[0].text",
        ),
    ],
)
async def test_members_with_a_meaning_for_the_model_are_refused(
    message: dict[str, Any], param: str
) -> None:
    assert_error(await post(body(messages=[message])), 400, param)


async def test_an_ignored_member_of_many_messages_is_named_once() -> None:
    messages = [{**USER, "parsed": at, f"m{at % 3}": 1} for at in range(500)]

    listed = (await post({"messages": messages}, "/tokenize", limits={})).headers[LISTED]

    assert listed == "messages[0].parsed, messages[0].m0, messages[1].m1, messages[2].m2"


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("a b", "a%20b"),
        ("x\r\nset-cookie: a=b", "x%0D%0Aset-cookie:%20a%3Db"),
        ("é, ключ", "%C3%A9%2C%20%D0%BA%D0%BB%D1%8E%D1%87"),
        ("\0", "%00"),
        ("", ""),
    ],
)
async def test_names_in_the_header_are_percent_encoded(name: str, listed: str) -> None:
    response = await post(body(messages=[{**USER, name: 1}]))

    assert response.headers[LISTED] == f"messages[0].{listed}"
    assert "set-cookie" not in response.headers


async def test_the_header_has_a_bounded_length() -> None:
    message = {**USER, **{f"member_{at}": 1 for at in range(1000)}, "☃" * 10**5: 1}

    listed = (await post(body(messages=[message]))).headers[LISTED]

    assert len(listed) <= MAX_LISTED
    assert listed.endswith(", ...")
    assert len(as_header(["☃" * 10**5])) <= MAX_LISTED
    assert re.fullmatch(r"[\x21-\x7e ]*", listed)


NOTHING = {
    "ignore_eos": False,
    "min_tokens": 0,
    "skip_special_tokens": True,
    "use_beam_search": False,
    "return_token_ids": False,
    "add_generation_prompt": True,
    "verbosity": "medium",
    "length_penalty": 1.0,
    "stop_token_ids": [],
    "bad_words": [],
    "spaces_between_special_tokens": True,
    "include_stop_str_in_output": False,
    "continue_final_message": False,
    "separate_reasoning": True,
    "include_reasoning": True,
    "stream_reasoning": True,
}


async def test_values_without_effect_are_accepted() -> None:
    response = await post(body(**NOTHING))
    only_chats = ("separate_reasoning", "include_reasoning", "stream_reasoning")
    request = {name: value for name, value in NOTHING.items() if name not in only_chats}
    raw = await post({"prompt": "hi", **request}, COMPLETIONS)

    assert response.status_code == raw.status_code == 200, response.text + raw.text
    assert LISTED not in response.headers


async def test_integral_floats_are_accepted_as_integers() -> None:
    fields = {"max_tokens": 100.0, "n": 2.0, "seed": -1.0, "max_thinking_tokens": 1.0}
    answer = (await post(body(**fields))).json()
    text = await post({"tokens": [104.0, 105]}, "/detokenize")
    raw = await post({"prompt": [104.0, 105]}, COMPLETIONS)
    one = await post({"prompt": [[104.0, 105.0]], "stop": ["x"]}, COMPLETIONS)
    thinking = await post(body(thinking={"type": "enabled", "budget_tokens": 2.0}))

    assert [choice["thinking"]["tokens"] for choice in answer["choices"]] == [1, 1]
    assert text.json() == {"prompt": "hi"}
    assert raw.json()["usage"]["prompt_tokens"] == one.json()["usage"]["prompt_tokens"] == 2
    assert thinking.json()["choices"][0]["thinking"]["max_tokens"] == 2
    assert_error(await post({"prompt": [[1.5, 1.0]]}, COMPLETIONS), 400, "prompt[0][0]")
    assert_error(await post({"prompt": [[1.0, -1.0]]}, COMPLETIONS), 400, "prompt[0][1]")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("skip_special_tokens", False),
        ("use_beam_search", True),
        ("priority", False),
        ("verbosity", "low"),
        ("length_penalty", True),
        ("stop_token_ids", [3]),
    ],
)
async def test_values_with_an_effect_are_refused(name: str, value: Any) -> None:
    assert_error(await post(body(**{name: value})), 400, name)


async def test_the_model_can_be_left_out() -> None:
    request = {"messages": [USER]}

    answers = [
        await post(request),
        await post({**request, "model": None}),
        await post(request, "/v1/route"),
    ]
    answers.append(await post({"prompt": "hi"}, COMPLETIONS))

    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[0].json()["model"] == "fake"


async def test_adaptive_thinking_asks_the_router() -> None:
    adaptive, auto = [
        (await post(body(thinking={"type": kind}), "/v1/route", default_tier="low")).json()
        for kind in ("adaptive", "auto")
    ]

    assert adaptive == auto
    assert (adaptive["source"], adaptive["field"]) == ("router", "thinking.type")
    raw = await post({"prompt": "hi", "thinking": {"type": "adaptive"}}, COMPLETIONS)
    assert_error(raw, 400, "thinking.type")


BESIDE = {"content": "42", "reasoning_content": "hm"}
WITHIN = {"content": "<think>hm</think>42", "reasoning_content": None}
NOWHERE = {"content": "42", "reasoning_content": None}


@pytest.mark.parametrize(
    ("default", "fields", "message"),
    [
        ("reasoning_content", {"include_reasoning": True}, BESIDE),
        ("reasoning_content", {"include_reasoning": False}, NOWHERE),
        ("reasoning_content", {"separate_reasoning": True}, BESIDE),
        ("reasoning_content", {"separate_reasoning": False}, WITHIN),
        ("tags", {"separate_reasoning": True}, BESIDE),
        ("tags", {"include_reasoning": True}, WITHIN),
        ("tags", {"include_reasoning": False}, NOWHERE),
        ("hidden", {"include_reasoning": True}, BESIDE),
        ("hidden", {"reasoning": {"exclude": False}}, BESIDE),
        ("hidden", {"separate_reasoning": True}, NOWHERE),
        ("hidden", {"separate_reasoning": False}, WITHIN),
        ("hidden", {"include_reasoning": True, "separate_reasoning": False}, WITHIN),
        ("tags", {"include_reasoning": False, "reasoning": {"exclude": True}}, NOWHERE),
        ("tags", {"include_reasoning": False, "reasoning_format": "hidden"}, NOWHERE),
        ("hidden", {"separate_reasoning": False, "reasoning_format": "tags"}, WITHIN),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_other_servers_fields_for_the_reasoning_format(
    default: str, fields: dict[str, Any], message: dict[str, Any], stream: bool
) -> None:
    response = await post(body(**fields, stream=stream), reasoning_format=default)

    if stream:
        received = merge_deltas(event.choice["delta"] for event in parse_events(response.text)[:-1])
    else:
        received = response.json()["choices"][0]["message"]
    assert received == {"role": "assistant", **message}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"include_reasoning": False, "reasoning_format": "both"}, ["include_reasoning"]),
        ({"include_reasoning": True, "reasoning_format": "hidden"}, ["include_reasoning"]),
        (
            {"include_reasoning": True, "reasoning": {"exclude": True}},
            ["reasoning.exclude' is true", "'include_reasoning' is true"],
        ),
        ({"separate_reasoning": False, "reasoning_format": "reasoning"}, ["separate_reasoning"]),
        ({"separate_reasoning": True, "reasoning_format": "tags"}, ["separate_reasoning"]),
        (
            {"separate_reasoning": False, "include_reasoning": False},
            ["'separate_reasoning' is false", "'include_reasoning' is false"],
        ),
    ],
)
async def test_contradicting_reasoning_formats_are_both_named(
    fields: dict[str, Any], names: list[str]
) -> None:
    response = await post(body(**fields))

    assert response.status_code == 400
    assert all(name in response.json()["error"]["message"] for name in names)


STYLES = ["reasoning_content", "reasoning", "both", "tags", "hidden"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("path", ["thinks", "does not"])
async def test_the_fields_of_the_thinking_are_in_every_delta(style: str, path: str) -> None:
    request = body(reasoning_format=style, stream=True)
    script = Script(("hm",) if path == "thinks" else (), "42")
    async with client(FakeEngine(script, opens=path == "thinks")) as http:
        streamed = await http.post(CHAT, json=request)
        whole = (await http.post(CHAT, json={**request, "stream": False})).json()["choices"][0]

    own = {"reasoning": ["reasoning"], "both": ["reasoning_content", "reasoning"]}
    for name in own.get(style, ["reasoning_content"]):
        for event in parse_events(streamed.text)[:-1]:
            delta = event.choice["delta"]
            assert (delta[name] is None) is (event.name != "reasoning" or style == "tags")
        assert whole["message"][name] == (
            "hm" if path == "thinks" and style in STYLES[:3] else None
        )


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("size", [1, 2])
async def test_usage_in_every_chunk(path: str, size: int) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    prompt = {"prompt": "hi<think>"} if path == COMPLETIONS else {"messages": [USER]}
    request = {**prompt, "n": 2, "stream": True, "stream_options": options, "max_tokens": 100}

    async def yield_to_response(job: Job, position: int) -> None:
        await asyncio.sleep(0)  # tokens that come at once are one chunk

    engine = FakeEngine(
        Script(("hm",), "42"), tokens_per_delta=size, before_token=yield_to_response
    )

    async with client(engine) as http:
        got = [
            event.data for event in parse_events((await http.post(path, json=request)).text)[:-1]
        ]

    *chunks, last = got
    for index in (0, 1):
        of = [chunk["usage"] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert len(of) >= 5
        counts = [usage["completion_tokens"] for usage in of]
        thought = [usage["completion_tokens_details"]["reasoning_tokens"] for usage in of]
        assert (counts, thought) == (sorted(counts), sorted(thought))
        assert (counts[-1], thought[-1]) == (6, 2)
        assert all(u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"] for u in of)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 12


async def test_usage_in_every_chunk_of_other_formats() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    for style in ("tags", "hidden"):
        request = body(stream=True, stream_options=options, reasoning_format=style, logprobs=True)
        got = [event.data for event in parse_events((await post(request)).text)[:-1]]
        counts = [chunk["usage"]["completion_tokens"] for chunk in got]
        assert (counts, counts[-1]) == (sorted(counts), 6)


@pytest.mark.parametrize("options", [{"continuous_usage_stats": True}, {"include_usage": True}])
async def test_no_usage_in_every_chunk_unless_asked(options: dict[str, Any]) -> None:
    response = await post(body(stream=True, stream_options=options))

    has_usage = ["usage" in event.data for event in parse_events(response.text)[:-1]]
    assert has_usage == [False] * (len(has_usage) - 1) + ["include_usage" in options]


@pytest.mark.parametrize(
    ("setting", "header", "field", "named"),
    [
        (True, None, None, True),
        (False, None, None, False),
        (True, "false", None, False),
        (False, "True", None, True),
        (True, "true", False, False),
        (False, "false", True, True),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_event_names_can_be_turned_off_and_on(
    path: str, setting: bool, header: str | None, field: bool | None, named: bool
) -> None:
    fields = {"prompt": "hi<think>", "max_tokens": 50} if path == COMPLETIONS else body()
    if field is not None:
        fields["event_names"] = field
    headers = {} if header is None else {"x-event-names": header}
    async with client(FakeEngine(die_after=6), event_names=setting) as http:
        response = await http.post(path, json={**fields, "stream": True}, headers=headers)

    blocks = response.text.removesuffix("\n\n").split("\n\n")
    assert any(block.startswith("event: ") for block in blocks) is named
    if not named:
        assert all(block.startswith("data: ") for block in blocks)
    assert '"error"' in blocks[-1]


async def test_an_invalid_event_names_header_is_refused() -> None:
    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, json=body(), headers={"x-event-names": "no"})

    assert_error(response, 400, "x-event-names")


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"usage": {"include": True}}, "Use 'stream_options.include_usage'"),
        ({"stream": True, "stream_options": {"usage": True}}, "Did you mean 'include_usage'?"),
        ({"cache_salt": "x"}, "Unknown field 'cache_salt'."),
        ({"budget_tokens": 3}, "budget_tokens'"),
    ],
)
async def test_errors_contain_hints(fields: dict[str, Any], hint: str) -> None:
    message = (await post(body(**fields))).json()["error"]["message"]

    assert hint in message
    assert "messages" not in message


async def test_every_invalid_key_of_a_logit_bias_is_named() -> None:
    bad: dict[str, float] = {"1": 1, "x": 1, "-3": 1, "2": 300, "99999999999": 1}
    error = assert_error(await post(body(logit_bias=bad)), 400, "logit_bias.x")

    assert all(f"'logit_bias.{key}'" in error["message"] for key in ("x", "-3", "2", "99999999999"))
    assert "'logit_bias.1'" not in error["message"]
    many = await post(body(logit_bias={f"x{at}": 1 for at in range(1000)}))
    assert "991 more" in many.json()["error"]["message"]
