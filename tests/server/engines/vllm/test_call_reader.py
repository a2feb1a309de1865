"""The reader of tool calls, for streams and whole responses, over vLLM's own parsers."""

import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import TokenBudget
from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import TextDelta, ToolCallDelta
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.engines.base import Job, ModelInfo, Sampling
from proctor.server.engines.fake import END_THINK, END_TURN, MARKERS, SPECIAL, TURN, ByteCodec
from proctor.server.engines.tool_calls import CallDelta, ToolChoice, ToolFormat
from proctor.server.renderers.chat import MessageBuilder
from tests.server.engines.vllm.tool_formats import FORMATS, PARTS, TOOLS, FormatTokenizer

tools_module = pytest.importorskip(
    "proctor.server.engines.vllm.tools",
    reason="the CPU engine, whose tool parsers these are, is missing",
)

ANY = ToolChoice(TOOLS, "auto", None, True, None)
BEGIN, END = "<tool_call>", "</tool_call>"


class Bytes:
    """The part of the fake engine's tokenizer that the parsers use."""

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
    content = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{BEGIN}\n{content}\n{END}"


def read(
    hermes: ToolFormat,
    tokens: Sequence[int],
    sizes: Iterator[int],
    stops: Sequence[str] = (),
    *,
    cut: bool = False,
) -> tuple[dict[str, Any], list[TextDelta | ToolCallDelta]]:
    """Return the message of these tokens, read in deltas of the given sizes, and its items."""
    answer = AnswerText(stops, hermes.bind(ANY).reader())
    model = ModelInfo("bytes", 4096, MARKERS, created=0)
    job = Job("job", (1,), Sampling(100), TokenBudget(opened=False))
    channels = ChannelSplitter(ByteCodec(MARKERS, opens=False), model, job, 0, answer)
    deltas: list[TextDelta | ToolCallDelta] = []
    at = 0
    while at < len(tokens) and not channels.stopped:
        size = next(sizes)
        deltas += channels.push(tokens[at : at + size])
        at += size
    if not channels.stopped:
        deltas += channels.close(cut=cut)
    draft = MessageBuilder(ReasoningFormat.REASONING_CONTENT)
    for item in deltas:
        draft.add(item)
    message = draft.message()
    calls = message.pop("tool_calls", [])
    assert answer.calls == len(calls)
    assert len({each["id"] for each in calls}) == len(calls)
    functions = [(each["function"]["name"], each["function"]["arguments"]) for each in calls]
    return {"content": message["content"] or "", "calls": functions}, deltas


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
def test_the_message_does_not_depend_on_the_size_of_deltas(
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
                st.integers()
                | st.text(st.characters(exclude_characters="<", codec="utf-8"))
                | st.booleans(),
                max_size=3,
            ),
        ),
        max_size=3,
    ),
    length=st.integers(0, 400),
)
def test_truncation_keeps_the_calls_before_it(
    hermes: ToolFormat, text: str, calls: list[tuple[str, dict[str, Any]]], length: int
) -> None:
    written = [call(name, **arguments) for name, arguments in calls]
    tokens = "".join([text, *written]).encode()
    ends = [len("".join([text, *written[:n]]).encode()) for n in range(1, len(calls) + 1)]

    found, _ = read(hermes, tokens[:length], forever([3]), cut=True)

    complete = sum(end <= length for end in ends)
    parsed = [(name, json.loads(args)) for name, args in found["calls"][:complete]]
    assert parsed == calls[:complete]
    assert len(found["calls"]) <= complete + 1
    for (name, arguments), (expected_name, expected_arguments) in zip(
        found["calls"][complete:], calls[complete:], strict=False
    ):
        assert name == expected_name
        assert json.dumps(expected_arguments, ensure_ascii=False).startswith(arguments.rstrip("}"))
    assert f"{text}<".startswith(found["content"])
    assert BEGIN not in found["content"]


THREE = [call("add", a=1), call("multiply", a=2), call("add", a=3)]


def test_a_truncated_call_is_reported_after_complete_ones(hermes: ToolFormat) -> None:
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
def test_markup_of_a_truncated_call_is_never_content(
    hermes: ToolFormat, written: str, calls: list[Any]
) -> None:
    found = whole(hermes, f"Now.\n{written}", cut=True)

    assert found == {"content": "Now.\n", "calls": calls}


def test_a_truncated_text_that_resembles_a_call_is_text(hermes: ToolFormat) -> None:
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
def test_stop_strings_do_not_apply_to_calls(hermes: ToolFormat, stop: str) -> None:
    text = "Three.\n" + "\n".join(THREE)

    found = whole(hermes, text, [stop])

    assert found["content"] == "Three.\n"
    assert [name for name, _ in found["calls"]] == ["add", "multiply", "add"]


def test_a_stop_string_in_the_text_ends_the_answer(hermes: ToolFormat) -> None:
    text = f"One.{THREE[0]}Two.{THREE[1]}"

    assert whole(hermes, text, ["One"]) == {"content": "", "calls": []}
    assert whole(hermes, text, ["Two"]) == {"content": "One.", "calls": [("add", '{"a": 1}')]}
    assert whole(hermes, text, ["e.Tw"])["content"] == "One.Two."


def test_special_tokens_are_not_content(hermes: ToolFormat) -> None:
    tokens = [TURN, *b"It is <|im_end|> ", END_THINK, *b"4.\n", TURN, *THREE[0].encode(), END_TURN]

    found, _ = read(hermes, tokens, forever([1]))

    assert found == {"content": "It is <|im_end|> 4.\n", "calls": [("add", '{"a": 1}')]}


def test_arguments_come_piece_by_piece(hermes: ToolFormat) -> None:
    _, deltas = read(hermes, THREE[0].encode(), forever([1]))

    assert len([item for item in deltas if isinstance(item, ToolCallDelta)]) > 3


def in_format(name: str, text: str, *, cut: bool = False) -> tuple[str, list[tuple[str, str]]]:
    tokenizer = FormatTokenizer()
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


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_parsed(name: str) -> None:
    content, [(function, arguments)] = in_format(name, FORMATS[name])

    assert (content, function, json.loads(arguments)) == ("", "add", {"a": 1})


@pytest.mark.parametrize("name", FORMATS)
def test_text_without_calls_is_text_in_every_format(name: str) -> None:
    text = "Hello <b> a [1] {x}.\n\nBye."

    assert in_format(name, text) == (text, [])
    assert in_format(name, text, cut=True)[0] in (text, "")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("cut", [False, True])
def test_truncation_is_handled_in_every_format(name: str, cut: bool) -> None:
    tokenizer = FormatTokenizer()
    tokens = tokenizer.encode(FORMATS[name])
    for length in range(len(tokens)):
        content, calls = in_format(name, tokenizer.decode(tokens[:length]), cut=cut)
        assert len(calls) <= 1
        assert not PARTS.search(content)
