"""Tools from the request to the response, over scripted calls in a format of vLLM's parsers."""

import contextlib
import json
from typing import Any

import httpx
import pytest

from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.engines.tool_calls import Constraint, Kind, ToolChoice, ToolFormat
from proctor.server.errors import UnsupportedRequest
from tests.server.harness import CHAT, body, client, parse_events

tools_module = pytest.importorskip(
    "proctor.server.engines.vllm.tools",
    reason="the CPU engine, whose tool parsers these are, is missing",
)
xgrammar = pytest.importorskip("xgrammar", reason="the CPU engine, which brings it, is missing")


class Tokenizer:
    """The part of a tokenizer that the parser uses."""

    def get_vocab(self) -> dict[str, int]:
        return {}


@pytest.fixture(scope="module")
def hermes() -> ToolFormat:
    made: ToolFormat = tools_module.VllmTools("hermes", Tokenizer())
    return made


def tool(name: str, **fields: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


def call(name: str, /, **arguments: Any) -> str:
    content = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{content}\n</tool_call>"


ADD = tool("add")
TWO = f"Two calls.\n{call('add', a=1)}\n{call('multiply', a='☃')}"


def engine(hermes: ToolFormat, answer: str) -> FakeEngine:
    return FakeEngine(Script(("Which tool?",), answer), tools=hermes)


async def ask(over: FakeEngine, **fields: Any) -> httpx.Response:
    async with client(over) as http:
        return await http.post(CHAT, json=body(tools=[ADD, tool("multiply")], **fields))


def arguments_of(calls: list[Any]) -> list[tuple[str, Any]]:
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


async def test_calls_are_removed_from_the_content(hermes: ToolFormat) -> None:
    response = await ask(engine(hermes, TWO))

    (choice,) = response.json()["choices"]
    message = choice["message"]
    assert arguments_of(message["tool_calls"]) == [("add", {"a": 1}), ("multiply", {"a": "☃"})]
    assert message["content"] == "Two calls.\n"
    assert message["reasoning_content"] == "Which tool?"
    assert choice["finish_reason"] == "tool_calls"
    assert len({c["id"] for c in message["tool_calls"]}) == 2
    assert all(c["type"] == "function" for c in message["tool_calls"])


async def test_a_message_of_calls_alone_has_no_content(hermes: ToolFormat) -> None:
    response = await ask(engine(hermes, call("add", a=1)))

    assert response.json()["choices"][0]["message"]["content"] is None


async def test_calls_are_streamed_piece_by_piece(hermes: ToolFormat) -> None:
    response = await ask(engine(hermes, TWO), stream=True)

    calls: list[Any] = []
    content = ""
    for event in parse_events(response.text):
        if event.data == "[DONE]":
            continue
        delta = event.choice["delta"]
        content += delta.get("content", "")
        for part in delta.get("tool_calls", ()):
            assert event.name == "answer"
            if "id" in part:
                assert set(part) == {"index", "id", "type", "function"}
                assert part["index"] == len(calls)
                calls.append({"function": dict(part["function"]), "pieces": 0})
            else:
                assert set(part) == {"index", "function"}
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
                calls[part["index"]]["pieces"] += 1
    assert content == "Two calls.\n"
    assert arguments_of(calls) == [("add", {"a": 1}), ("multiply", {"a": "☃"})]
    assert all(each["pieces"] > 3 for each in calls)
    assert parse_events(response.text)[-2].choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
async def test_parallel_tool_calls_false_limits_to_one_call(
    hermes: ToolFormat, stream: bool
) -> None:
    response = await ask(engine(hermes, TWO), stream=stream, parallel_tool_calls=False)

    assert "add" in response.text
    assert "multiply" not in response.text


async def test_tool_choice_none_leaves_calls_in_the_content(hermes: ToolFormat) -> None:
    response = await ask(engine(hermes, TWO), tool_choice="none")

    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == TWO
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("choice", "finish"),
    [
        ("required", "tool_calls"),
        ({"type": "function", "function": {"name": "add"}}, "stop"),
    ],
)
async def test_a_forced_call_is_constrained(hermes: ToolFormat, choice: Any, finish: str) -> None:
    over = engine(hermes, call("add", a=1))

    response = await ask(over, tool_choice=choice)

    bound = over.jobs[0].sampling.constraint
    assert bound is not None
    assert (bound.kind, bound.field) == (Kind.STRUCTURAL_TAG, "tools")
    assert response.json()["choices"][0]["finish_reason"] == finish


async def test_a_truncated_call_finishes_with_length(hermes: ToolFormat) -> None:
    response = await ask(engine(hermes, call("add", a=1)), max_tokens=40, max_thinking_tokens=2)

    assert response.json()["choices"][0]["finish_reason"] == "length"


async def test_tools_reach_the_prompt_and_the_router(hermes: ToolFormat) -> None:
    over = engine(hermes, "42")
    async with client(over, default_tier="auto") as http:
        with_tools = await http.post("/v1/route", json=body(tools=[ADD]))
        without = await http.post("/v1/route", json=body())
        await http.post(CHAT, json=body(tools=[ADD]))

    assert b'"add"' in bytes(token for token in over.jobs[0].prompt_ids if token < 256)
    probabilities = [
        probabilities.json()["router"]["probabilities"] for probabilities in (with_tools, without)
    ]
    assert probabilities[0] != probabilities[1]


async def test_a_server_without_a_parser_refuses_tools() -> None:
    async with client(FakeEngine()) as http:
        response = await http.post(CHAT, json=body(tools=[ADD]))
        harmless = await http.post(CHAT, json=body(tools=[ADD], tool_choice="none"))

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools"
    assert harmless.status_code == 200


async def test_tool_results_reach_the_prompt(hermes: ToolFormat) -> None:
    over = engine(hermes, "It is 12.")
    tool_call = {
        "id": "call-1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1}'},
    }
    conversation = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": None, "tool_calls": [tool_call]},
        {"role": "tool", "tool_call_id": "call-1", "content": "12"},
    ]

    response = await ask(over, messages=conversation)

    prompt = bytes(token for token in over.jobs[0].prompt_ids if token < 256).decode()
    assert '"arguments": {"a": 1}' in prompt
    assert "tool\n12" in prompt
    assert response.json()["choices"][0]["message"]["content"] == "It is 12."


@pytest.mark.parametrize(
    "arguments",
    ["", "nothing", "[1]", '{"a": NaN}', f'{{"a": {9**40}}}', '{"a": "\\ud800"}', "[" * 300],
)
async def test_invalid_arguments_are_rendered_as_an_empty_object(
    hermes: ToolFormat, arguments: str
) -> None:
    over = engine(hermes, "It is 12.")
    tool_call = {"id": "call-1", "function": {"name": "add", "arguments": arguments}}
    conversation = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "tool_calls": [tool_call]},
        {"role": "tool", "tool_call_id": "call-1", "content": "12"},
    ]

    response = await ask(over, messages=conversation)

    assert response.status_code == 200
    prompt = bytes(token for token in over.jobs[0].prompt_ids if token < 256).decode()
    assert '"arguments": {}' in prompt


async def test_a_turn_has_one_budget_across_its_tool_calls(hermes: ToolFormat) -> None:
    tool_call = {"id": "1", "function": {"name": "add", "arguments": "{}"}}
    earlier = {"role": "user", "content": "Before."}
    conversation = [
        earlier,
        {"role": "assistant", "content": "It is 3.", "reasoning_content": "x" * 50},
        {"role": "user", "content": "Add."},
        {"role": "assistant", "tool_calls": [tool_call], "reasoning_content": "12345678"},
        {"role": "tool", "tool_call_id": "1", "content": "12"},
        {"role": "assistant", "tool_calls": [tool_call], "reasoning": "1234"},
        {"role": "tool", "tool_call_id": "1", "content": "13"},
    ]
    script = Script(("y" * 100,), "42")
    results = {}
    for cap in (20, 12, 3):
        over = FakeEngine(script, tools=hermes)
        response = await ask(over, messages=conversation, max_thinking_tokens=cap)
        results[cap] = response.json()["choices"][0]["thinking"]

    assert (results[20]["tokens"], results[20]["max_tokens"]) == (8, 8)
    assert results[20]["clamped"]
    assert [results[cap]["tokens"] for cap in (12, 3)] == [0, 0]


async def test_earlier_thinking_of_the_turn_counts_towards_the_minimum(hermes: ToolFormat) -> None:
    conversation = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "", "thinking": "123456"},
    ]
    for minimum, remaining in ((10, 4), (5, 0)):
        over = engine(hermes, "42")
        await ask(over, messages=conversation, min_thinking_tokens=minimum)
        assert over.jobs[0].budget.minimum == remaining


def test_a_response_format_with_tools_allows_both(hermes: ToolFormat) -> None:
    schema = Constraint(Kind.JSON, {"type": "integer"}, "response_format")

    bound = hermes.bind(ToolChoice((ADD,), "auto", None, True, schema)).constraint

    assert bound is not None
    assert bound.kind is Kind.STRUCTURAL_TAG
    assert '"integer"' in bound.value
    assert "<tool_call>" in bound.value


def test_an_unknown_parser_is_named() -> None:
    with pytest.raises(ValueError, match="hermès"):
        tools_module.VllmTools("hermès", Tokenizer())


def choose(*tools: dict[str, Any], mode: str = "auto", **options: Any) -> ToolChoice:
    options = {"name": None, "parallel": True, "constraint": None, **options}
    return ToolChoice(tools, mode, **options)


def bound_arguments(constraint: Constraint | None) -> list[Any]:
    """Return the JSON schemas in a structural tag."""
    assert constraint is not None
    assert constraint.kind is Kind.STRUCTURAL_TAG

    def found(part: Any) -> list[Any]:
        if isinstance(part, dict):
            if part.get("type") == "json_schema":
                assert part["max_whitespace_cnt"] == 1
                return [part["json_schema"]]
            return [each for value in part.values() for each in found(value)]
        return [each for value in part for each in found(value)] if isinstance(part, list) else []

    return found(json.loads(constraint.value))


SCHEMA = ADD["function"]["parameters"]


@pytest.mark.parametrize("strict", [None, False, True])
@pytest.mark.parametrize(("mode", "name"), [("required", None), ("named", "add")])
def test_a_forced_call_has_its_schema_whatever_strict_says(
    hermes: ToolFormat, mode: str, name: str | None, strict: bool | None
) -> None:
    fields = {} if strict is None else {"strict": strict}

    bound = hermes.bind(choose(tool("add", **fields), mode=mode, name=name)).constraint

    schemas = bound_arguments(bound)
    assert schemas
    assert all(schema == SCHEMA for schema in schemas)


@pytest.mark.parametrize(("strict", "schema"), [(False, {"type": "object"}), (True, SCHEMA)])
def test_an_optional_call_has_its_schema_only_if_strict(
    hermes: ToolFormat, strict: bool, schema: dict[str, Any]
) -> None:
    bound = hermes.bind(choose(tool("add", strict=strict))).constraint

    assert {json.dumps(each) for each in bound_arguments(bound)} == {json.dumps(schema)}


@pytest.mark.parametrize("parameters", [None, {}])
def test_a_function_without_parameters_gets_an_empty_object(
    hermes: ToolFormat, parameters: dict[str, Any] | None
) -> None:
    function = tool("add")
    function["function"]["parameters"] = parameters

    bound = hermes.bind(choose(function, mode="required")).constraint

    assert bound_arguments(bound)[0] == {"type": "object", "properties": {}}


def test_the_unsupported_schema_of_several_is_named(hermes: ToolFormat) -> None:
    unsupported = tool("bad")
    unsupported["function"]["parameters"] = {"type": "object", "not": {"required": ["a"]}}

    with pytest.raises(UnsupportedRequest) as caught:
        hermes.bind(choose(ADD, unsupported, mode="required"))
    allowed = hermes.bind(choose(ADD, unsupported)).constraint

    assert caught.value.param == "tools[1].function.parameters"
    assert "'not'" in str(caught.value)
    assert allowed is not None


@pytest.mark.parametrize("kind", ["integer", ["integer", "null"], None, 5])
async def test_parameters_of_another_type_than_object_are_refused(
    hermes: ToolFormat, kind: Any
) -> None:
    function = tool("add")
    function["function"]["parameters"] = {"type": kind}
    async with client(engine(hermes, "42")) as http:
        response = await http.post(CHAT, json=body(tools=[function]))

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools[0].function.parameters"


async def test_descriptions_of_tools_may_be_long(hermes: ToolFormat) -> None:
    long = "x" * 18_780
    function = tool("add", description=long)
    function["function"]["parameters"] = {
        "type": "object",
        "properties": {"a": {"type": "integer", "description": long * 4}},
    }
    over = FakeEngine(Script(("Hm",), "42"), tools=hermes, context_length=500_000)
    async with client(over) as http:
        responses = [
            await http.post(CHAT, json=body(tools=[function], tool_choice=choice))
            for choice in ("auto", "required")
        ]

    assert [response.status_code for response in responses] == [200, 200]


async def test_too_many_tools_are_refused_by_name(hermes: ToolFormat) -> None:
    async with client(engine(hermes, "42")) as http:
        tools = [tool(f"f{at}") for at in range(1000)]
        response = await http.post(CHAT, json=body(tools=tools))

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools"
    assert "128" in response.json()["error"]["message"]


@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_tools_that_the_template_ignores_are_refused(
    hermes: ToolFormat, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    over = engine(hermes, "42")

    async def never() -> bool:
        return False

    monkeypatch.setattr(over.codec, "renders_tools", never)
    async with client(over) as http:
        request = body(tools=[ADD], tool_choice=choice)
        refused = [
            await http.post(CHAT, json=request),
            await http.post("/v1/route", json=request),
            await http.post("/tokenize", json={"messages": request["messages"], "tools": [ADD]}),
        ]
        harmless = await http.post(CHAT, json=body(tools=[ADD], tool_choice="none"))

    assert [response.status_code for response in refused] == [400, 400, 400]
    assert {response.json()["error"]["param"] for response in refused} == {"tools"}
    assert harmless.status_code == 200


BOUND: list[tuple[Kind, Any]] = [
    (Kind.JSON, SCHEMA),
    (Kind.JSON, {"type": "strin"}),
    (Kind.JSON_OBJECT, True),
    (Kind.REGEX, "a+"),
    (Kind.REGEX, "(unclosed"),
    (Kind.REGEX, "\0"),
    (Kind.CHOICE, ["a", "b"]),
    (Kind.GRAMMAR, 'root ::= "x"'),
    (Kind.GRAMMAR, "root ::= "),
    (Kind.GRAMMAR, "start: "),
    (Kind.STRUCTURAL_TAG, "{}"),
    (Kind.STRUCTURAL_TAG, "nothing"),
    (Kind.STRUCTURAL_TAG, "[1]"),
    (Kind.STRUCTURAL_TAG, '{"structures": 3}'),
    (Kind.STRUCTURAL_TAG, '{"structures": [{"begin": true}], "triggers": 1}'),
    (Kind.STRUCTURAL_TAG, "[" * 2000),
]


@pytest.mark.parametrize(("kind", "value"), BOUND)
@pytest.mark.parametrize("choice", ["auto", "required", "named"])
async def test_structured_outputs_with_tools_are_served_or_refused_by_name(
    hermes: ToolFormat, choice: str, kind: Kind, value: Any
) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    over = engine(hermes, call("add", a=1))

    response = await ask(
        over,
        tool_choice=named if choice == "named" else choice,
        structured_outputs={kind.value: value},
    )

    if response.status_code == 200:
        assert over.jobs[0].sampling.constraint is not None
    else:
        assert response.status_code == 400
        assert choice == "auto"
        error = response.json()["error"]
        assert error["param"] == f"structured_outputs.{kind.value}"
        assert kind.value in error["message"]


@pytest.mark.parametrize(("kind", "value"), BOUND)
def test_grammars_are_not_parsed_in_this_process(
    hermes: ToolFormat, kind: Kind, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parsing libraries can crash the process: a pattern of 40,000 stars did."""
    parsed: list[Any] = []
    for name in ("ebnf", "json_schema", "lark", "regex", "structural_tag"):
        monkeypatch.setattr(xgrammar.Grammar, f"from_{name}", parsed.append)

    with contextlib.suppress(UnsupportedRequest):
        hermes.bind(choose(ADD, constraint=Constraint(kind, value, "field")))

    assert not parsed


STARS = {"type": "string", "pattern": "a" + "*" * 40_000}


@pytest.mark.parametrize(
    ("kind", "value", "param"),
    [
        (Kind.JSON, STARS, "response_format.json_schema.schema.pattern"),
        (Kind.GRAMMAR, 'start: "a"', "response_format"),
        (Kind.REGEX, "(" * 99, "response_format"),
    ],
)
def test_a_constraint_unsupported_with_tools_is_named(
    hermes: ToolFormat, kind: Kind, value: Any, param: str
) -> None:
    with pytest.raises(UnsupportedRequest, match="'response_format") as caught:
        hermes.bind(choose(ADD, constraint=Constraint(kind, value, "response_format")))

    assert caught.value.param == param


def test_errors_of_a_constraint_with_tools_name_its_field(hermes: ToolFormat) -> None:
    form = Constraint(Kind.REGEX, "a+", "structured_outputs.regex")

    bound = hermes.bind(choose(ADD, constraint=form)).constraint

    assert bound is not None
    assert bound.field == "structured_outputs.regex"


def test_the_total_size_of_schemas_is_bounded(hermes: ToolFormat) -> None:
    member = {"type": "string", "enum": [f"{i:06}" for i in range(6000)]}
    large = {"type": "object", "properties": {"a": member}}
    tools = [tool(f"f{i}", parameters=large, strict=True) for i in range(6)]

    assert hermes.bind(choose(*tools[:4])).constraint
    with pytest.raises(UnsupportedRequest, match="together") as caught:
        hermes.bind(choose(*tools))
    assert caught.value.param == "tools"


def test_without_constraints_optional_calls_are_only_parsed() -> None:
    unbound = tools_module.VllmTools("hermes", Tokenizer(), binds=False)

    assert unbound.bind(choose(ADD)).constraint is None
    assert unbound.bind(choose(ADD, mode="required")).constraint is not None
    assert unbound.bind(choose(tool("add", strict=True))).constraint is not None


def test_a_format_without_a_grammar_refuses_forced_and_strict_calls() -> None:
    free = tools_module.VllmTools("gemma4", Tokenizer())

    assert free.bind(choose(ADD)).constraint is None
    with pytest.raises(UnsupportedRequest) as caught:
        free.bind(choose(ADD, mode="required"))
    assert caught.value.param == "tool_choice"
    with pytest.raises(UnsupportedRequest) as caught:
        free.bind(choose(ADD, tool("multiply", strict=True)))
    assert caught.value.param == "tools[1].function.strict"
