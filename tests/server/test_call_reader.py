"""One reader of tool calls for streams and whole answers, over vLLM's own parsers."""

import json
import re
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import TokenBudget
from server.answer import AnswerText
from server.channels import Call, Channels, Piece
from server.completion import Draft
from server.engines.answers import CallDelta, ToolChoice, ToolFormat
from server.engines.base import Job, ModelInfo, Sampling
from server.engines.fake import END_THINK, END_TURN, MARKERS, SPECIAL, TURN, ByteCodec
from server.schemas import ReasoningFormat

tools_module = pytest.importorskip(
    "server.engines.tools", reason="the CPU engine, whose tool parsers these are, is missing"
)

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}}
    for name in ("add", "multiply")
)
ANY = ToolChoice(TOOLS, "auto", None, True, None)
BEGIN, END = "<tool_call>", "</tool_call>"


class Bytes:
    """The fake engine's tokenizer, as much as the parsers ask for."""

    def __init__(self) -> None:
        self.added_tokens_decoder = {
            token: SimpleNamespace(content=text, special=True) for text, token in SPECIAL.items()
        }

    def get_vocab(self) -> dict[str, int]:
        return SPECIAL


@pytest.fixture(scope="module")
def hermes() -> ToolFormat:
    made: ToolFormat = tools_module.VllmTools("hermes", Bytes())
    return made


def call(name: str, **arguments: Any) -> str:
    told = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{BEGIN}\n{told}\n{END}"


def read(
    hermes: ToolFormat,
    tokens: Sequence[int],
    sizes: Iterator[int],
    stops: Sequence[str] = (),
    *,
    cut: bool = False,
) -> tuple[dict[str, Any], list[Piece | Call]]:
    """The message that these tokens make, however many of them come at once, and its deltas."""
    answer = AnswerText(stops, hermes.bind(ANY).reader())
    model = ModelInfo("bytes", 4096, MARKERS, created=0)
    job = Job("job", (1,), Sampling(100), TokenBudget(opened=False))
    channels = Channels(ByteCodec(MARKERS, opens=False), model, job, 0, answer)
    told: list[Piece | Call] = []
    at = 0
    while at < len(tokens) and not channels.stopped:
        size = next(sizes)
        told += channels.push(tokens[at : at + size])
        at += size
    if not channels.stopped:
        told += channels.close(cut=cut)
    draft = Draft(ReasoningFormat.REASONING_CONTENT)
    for item in told:
        draft.add(item)
    message = draft.message()
    calls = message.pop("tool_calls", [])
    assert answer.calls == len(calls)
    assert len({each.pop("id") for each in calls}) == len(calls)
    functions = [(each["function"]["name"], each["function"]["arguments"]) for each in calls]
    return {"content": message["content"] or "", "calls": functions}, told


def forever(sizes: Sequence[int]) -> Iterator[int]:
    while True:
        yield from sizes


def whole(hermes: ToolFormat, text: str, stops: Sequence[str] = (), *, cut: bool = False) -> Any:
    return read(hermes, text.encode(), forever([10_000]), stops, cut=cut)[0]


fragments = st.sampled_from(
    [
        *(BEGIN, END, "<", "<tool", "\n", "{", "}", '"', ",", ": ", "[", "1", " "),
        *('{"name": "add"', '"arguments"', '"arguments": ', '{"a": 1}', "☃", "}\n", "No call."),
        *('{"name": "multiply", "arguments": ', '{"arguments": {"a": 1}, "name": "add"}'),
        call("add", a=1),
        call("multiply", a="☃ <b>"),
        call("multiply"),
    ]
).map(str.encode)
marked = fragments | st.sampled_from([TURN, END_THINK]).map(lambda token: [token])
answers = st.lists(marked, max_size=9).map(lambda parts: [t for part in parts for t in part])


@given(
    tokens=answers,
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    stops=st.lists(st.sampled_from(["N", "No call.", '"', "{", END, "1", "\n\n"]), max_size=2),
    cut=st.booleans(),
)
def test_how_tokens_come_does_not_matter(
    hermes: ToolFormat, tokens: list[int], sizes: list[int], stops: list[str], cut: bool
) -> None:
    one_by_one, _ = read(hermes, tokens, forever([1]), stops, cut=cut)

    assert read(hermes, tokens, forever(sizes), stops, cut=cut)[0] == one_by_one
    assert read(hermes, tokens, forever([10_000]), stops, cut=cut)[0] == one_by_one
    for name in SPECIAL:
        assert name not in one_by_one["content"]
    for stop in stops:
        assert stop not in one_by_one["content"]
    for name, arguments in one_by_one["calls"]:
        assert name
        assert arguments.lstrip().startswith("{") or (cut and not arguments)


@given(
    text=st.text(st.characters(exclude_characters="<", codec="utf-8")).map(lambda t: t.lstrip()),
    calls=st.lists(
        st.tuples(
            st.sampled_from(["add", "multiply"]),
            st.dictionaries(
                st.text(st.characters(exclude_characters="<", codec="utf-8")),
                st.integers() | st.text(st.characters(exclude_characters="<")) | st.booleans(),
                max_size=3,
            ),
        ),
        max_size=3,
    ),
    length=st.integers(0, 400),
)
def test_a_cut_leaves_what_came_before_it(
    hermes: ToolFormat, text: str, calls: list[tuple[str, dict[str, Any]]], length: int
) -> None:
    written = [call(name, **arguments) for name, arguments in calls]
    tokens = "".join([text, *written]).encode("utf-8", "surrogatepass")
    ends = [len("".join([text, *written[:n]]).encode()) for n in range(1, len(calls) + 1)]

    found, _ = read(hermes, tokens[:length], forever([3]), cut=True)

    complete = sum(end <= length for end in ends)
    told = [(name, json.loads(args)) for name, args in found["calls"][:complete]]
    assert told == calls[:complete]
    assert len(found["calls"]) <= complete + 1
    for (name, arguments), (asked, all_of_it) in zip(
        found["calls"][complete:], calls[complete:], strict=False
    ):
        assert name == asked
        assert json.dumps(all_of_it, ensure_ascii=False).startswith(arguments.rstrip("}"))
    assert f"{text}<".startswith(found["content"])
    assert BEGIN not in found["content"]


THREE = [call("add", a=1), call("multiply", a=2), call("add", a=3)]


def test_a_cut_call_is_a_call_and_complete_ones_are_whole(hermes: ToolFormat) -> None:
    text = "Three.\n" + "\n".join(THREE)

    found = whole(hermes, text[: text.rindex("3")], cut=True)

    assert found == {
        "content": "Three.\n",
        "calls": [("add", '{"a": 1}'), ("multiply", '{"a": 2}'), ("add", '{"a":')],
    }


@pytest.mark.parametrize(
    ("written", "calls"),
    [
        (BEGIN, []),
        ("<tool_", []),
        (f'{BEGIN}\n{{"na', []),
        (f'{BEGIN}\n{{"name": "ad', []),
        (f'{BEGIN}\n{{"name": "add"', [("add", "")]),
        (f'{BEGIN}\n{{"name": "add", "arguments": ', [("add", "")]),
        (f'{BEGIN}\n{{"name": "add", "arguments": {{"a', [("add", '{"a')]),
        (f'{BEGIN}\n{{"name": "add", "arguments": {{"a": 1}}}}\n</tool', [("add", '{"a": 1}')]),
    ],
)
def test_markup_of_a_cut_call_is_never_content(
    hermes: ToolFormat, written: str, calls: list[Any]
) -> None:
    found = whole(hermes, f"Now.\n{written}", cut=True)

    assert found == {"content": "Now.\n", "calls": calls}


def test_text_that_only_looks_like_a_call_at_a_cut_is_text(hermes: ToolFormat) -> None:
    assert whole(hermes, "3 <", cut=True) == {"content": "3 <", "calls": []}


@pytest.mark.parametrize(
    "malformed",
    [
        "not json",
        "[]",
        '{"nome": "add", "arguments": {}}',
        '{"name": 3, "arguments": {}}',
        '{"name": "add", "arguments": 7}',
        '{"name": "add", "arguments": "{}"}',
        '{"name": "add", "arguments": [1]}',
    ],
)
def test_a_malformed_call_is_text_and_the_others_are_calls(
    hermes: ToolFormat, malformed: str
) -> None:
    bad = f"{BEGIN}\n{malformed}\n{END}"

    found = whole(hermes, "\n".join([THREE[0], bad, THREE[2]]))

    assert found["calls"] == [("add", '{"a": 1}'), ("add", '{"a": 3}')]
    assert found["content"].strip() == bad
    assert whole(hermes, bad) == {"content": bad, "calls": []}
    assert whole(hermes, bad.removesuffix(END))["content"] == bad.removesuffix(END)


def test_a_call_without_arguments_has_an_empty_object_of_them(hermes: ToolFormat) -> None:
    bare = f'{BEGIN}\n{{"name": "add"}}\n{END}'

    assert whole(hermes, bare + bare)["calls"] == [("add", "{}"), ("add", "{}")]


@pytest.mark.parametrize("stop", ['"a"', END, BEGIN, "{", "add", "\n<tool_call>"])
def test_stop_strings_are_not_looked_for_in_calls(hermes: ToolFormat, stop: str) -> None:
    text = "Three.\n" + "\n".join(THREE)

    found = whole(hermes, text, [stop])

    assert found["content"] == "Three.\n"
    assert [name for name, _ in found["calls"]] == ["add", "multiply", "add"]


def test_a_stop_string_in_the_text_ends_the_answer(hermes: ToolFormat) -> None:
    text = f"One.{THREE[0]}Two.{THREE[1]}"

    assert whole(hermes, text, ["One"]) == {"content": "", "calls": []}
    assert whole(hermes, text, ["Two"]) == {"content": "One.", "calls": [("add", '{"a": 1}')]}
    assert whole(hermes, text, ["e.Tw"])["content"] == "One.Two."


def test_special_tokens_are_no_content(hermes: ToolFormat) -> None:
    tokens = [TURN, *b"It is <|im_end|> ", END_THINK, *b"4.\n", TURN, *THREE[0].encode(), END_TURN]

    found, _ = read(hermes, tokens, forever([1]))

    assert found == {"content": "It is <|im_end|> 4.\n", "calls": [("add", '{"a": 1}')]}


def test_arguments_come_piece_by_piece(hermes: ToolFormat) -> None:
    _, told = read(hermes, THREE[0].encode(), forever([1]))

    assert len([item for item in told if isinstance(item, Call)]) > 3


BAR = "\N{FULLWIDTH VERTICAL LINE}"
CALLS, CALL, SEPARATOR, CALL_ENDS, CALLS_END = (
    f"<{BAR}tool▁{name}{BAR}>"
    for name in ("calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end")
)
"""DeepSeek's."""

SPELLED = [
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|tool_call|>"),
    *(CALLS, CALL, SEPARATOR, CALL_ENDS, CALLS_END, "<tool_call>", "</tool_call>"),
    *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
    *("<|tool_call_end|>", "<|tool_call_argument_begin|>", "<tool_calls>", "</tool_calls>"),
    *("<|tool_call_start|>", "<|action_start|>", "<|plugin|>", "<|action_end|>", "<arg_key>"),
    *("</arg_key>", "<arg_value>", "</arg_value>", "<minimax:tool_call>", "</minimax:tool_call>"),
    *("<seed:tool_call>", "</seed:tool_call>", "<longcat_tool_call>", "</longcat_tool_call>"),
]
PARTS = re.compile("(" + "|".join(map(re.escape, SPELLED)) + ")")


class Spelled:
    """A tokenizer that has every format's own tokens, all special, and characters."""

    def __init__(self) -> None:
        self.added = dict(enumerate(SPELLED, 0x110000))
        self.added_tokens_decoder = {
            token: SimpleNamespace(content=text, special=True) for token, text in self.added.items()
        }

    def get_vocab(self) -> dict[str, int]:
        return {text: token for token, text in self.added.items()}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        vocab = self.get_vocab()
        return [
            token
            for part in PARTS.split(text)
            for token in ([vocab[part]] if part in vocab else map(ord, part))
        ]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(self.added.get(token) or chr(token) for token in token_ids)


JSON = '{"name": "add", "arguments": {"a": 1}}'
MODELS = {
    "hermes": f"<tool_call>\n{JSON}\n</tool_call>",
    "longcat": f"<longcat_tool_call>{JSON}</longcat_tool_call>",
    "mistral": '[TOOL_CALLS]add[ARGS]{"a": 1}',
    "llama3_json": '{"name": "add", "parameters": {"a": 1}}',
    "llama4_json": '<|python_tag|>{"name": "add", "parameters": {"a": 1}}',
    "qwen3_coder": "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n"
    "</tool_call>",
    "qwen3_xml": "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n"
    "</tool_call>",
    "deepseek_v3": f"{CALLS}{CALL}function{SEPARATOR}add\n```json\n"
    f'{{"a": 1}}\n```{CALL_ENDS}{CALLS_END}',
    "deepseek_v31": f'{CALLS}{CALL}add{SEPARATOR}{{"a": 1}}{CALL_ENDS}{CALLS_END}',
    "pythonic": "[add(a=1)]",
    "llama4_pythonic": "[add(a=1)]",
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0"
    '<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_calls_section_end|>',
    "granite": f"<|tool_call|>[{JSON}]",
    "granite4": f"<tool_call>{JSON}</tool_call>",
    "glm45": "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    "minimax_m2": '<minimax:tool_call>\n<invoke name="add">\n<parameter name="a">1</parameter>\n'
    "</invoke>\n</minimax:tool_call>",
    "internlm": '<|action_start|><|plugin|>{"name": "add", "parameters": {"a": 1}}<|action_end|>',
    "phi4_mini_json": f"functools[{JSON}]",
    "xlam": f"[{JSON}]",
    "jamba": f"<tool_calls>[{JSON}]</tool_calls>",
    "hunyuan_a13b": f"<tool_calls>[{JSON}]</tool_calls>",
    "lfm2": "<|tool_call_start|>[add(a=1)]<|tool_call_end|>",
    "seed_oss": "<seed:tool_call><function=add><parameter=a>1</parameter></function>"
    "</seed:tool_call>",
}


def in_format(name: str, text: str, *, cut: bool = False) -> tuple[str, list[tuple[str, str]]]:
    tokenizer = Spelled()
    reader = tools_module.VllmTools(name, tokenizer).bind(ANY).reader()
    found: list[str | CallDelta] = []
    for token in tokenizer.encode(text):
        found += reader.push(tokenizer.decode([token]), [token])
    found += reader.close(cut=cut)
    calls: list[tuple[str, str]] = []
    for item in found:
        if isinstance(item, CallDelta):
            if item.id is not None:
                assert item.index == len(calls)
                calls.append((item.name or "", ""))
            name, arguments = calls[item.index]
            calls[item.index] = (name, arguments + item.arguments)
    return "".join(item for item in found if isinstance(item, str)), calls


@pytest.mark.parametrize("name", MODELS)
def test_every_format_is_read(name: str) -> None:
    content, [(function, arguments)] = in_format(name, MODELS[name])

    assert (content, function, json.loads(arguments)) == ("", "add", {"a": 1})


@pytest.mark.parametrize("name", MODELS)
def test_text_in_every_format_is_text(name: str) -> None:
    text = "Hello <b> a [1] {x}.\n\nBye."

    assert in_format(name, text) == (text, [])
    assert in_format(name, text, cut=True)[0] in (text, "")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cut", [False, True])
def test_what_breaks_off_in_any_format_breaks_nothing(name: str, cut: bool) -> None:
    tokenizer = Spelled()
    tokens = tokenizer.encode(MODELS[name])
    for length in range(len(tokens)):
        content, calls = in_format(name, tokenizer.decode(tokens[:length]), cut=cut)
        assert len(calls) <= 1
        assert not PARTS.search(content)
