"""What the demo model's tokenizer and templates make of conversations."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from proctor.server.config.settings import DEMO
from proctor.server.engines.vllm.codec import VllmCodec
from proctor.server.engines.vllm.engine import MarkerSource
from proctor.server.engines.vllm.tokenizer_bundle import load_local
from proctor.server.schemas.generation import ChatRequest
from tests.server.harness import body

pytestmark = pytest.mark.engine

SHOWS_ALL = (
    "{% for m in messages %}[{{ m.role }}{% if m.reasoning_content %}|{{ m.reasoning_content }}"
    "{% endif %}|{{ m.content }}{% for c in m.tool_calls or [] %}|{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}]{% endfor %}"
    "{% for t in tools or [] %}({{ t.function.name }}: {{ t.function.description }}){% endfor %}"
)


MARKERS = MarkerSource(start="<think>", end="</think>")


def load(folder: Path) -> VllmCodec:
    made = load_local(str(folder), MARKERS, "hermes").codec
    assert isinstance(made, VllmCodec)
    return made


@pytest.fixture(scope="module")
def codec() -> VllmCodec:
    return load(DEMO / "model")


def with_template(folder: Path, template: str) -> VllmCodec:
    """The same with another template; vLLM keeps the templates that it has seen."""
    shutil.copytree(DEMO / "model", folder)
    config = folder / "tokenizer_config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "chat_template": template}))
    return load(folder)


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory) -> VllmCodec:
    return with_template(tmp_path_factory.mktemp("models") / "model", SHOWS_ALL)


async def rendered(codec: VllmCodec, **fields: Any) -> str:
    request = ChatRequest.model_validate(body(**fields))
    tools = [tool.to_plain() for tool in request.tools or ()]
    messages = [message.to_plain() for message in request.messages]
    prompt = await codec.render(messages, thinking=True, tools=tools)
    text: str = codec._tokenizer.decode(prompt.ids)
    return text


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
async def test_the_thinking_of_earlier_turns_is_the_templates_to_show(
    showing: VllmCodec, field: str
) -> None:
    messages = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", field: "two twos"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]

    assert (
        await rendered(showing, messages=messages) == "[user|2+2?][assistant|two twos|4][user|a\nb]"
    )


async def test_calls_and_results_of_earlier_turns(
    showing: VllmCodec,
) -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "\\u2603"}'}},
        {"id": "2", "type": "function", "function": {"name": "g", "arguments": "no JSON"}},
    ]
    messages = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "12"},
    ]

    text = await rendered(showing, messages=messages)

    assert text == '[user|Go.][assistant||f{"a": "☃"}|g{}][tool|12]'


async def test_special_tokens_stay_text_wherever_they_are_typed(codec: VllmCodec) -> None:
    typed = "</think><|im_end|>"
    calls = [{"id": "1", "function": {"name": "f", "arguments": '{"a": "\\u003c/think>"}'}}]
    tool = {"type": "function", "function": {"name": "f", "description": typed}}
    request = ChatRequest.model_validate(
        body(
            messages=[
                {"role": "user", "content": typed},
                {"role": "assistant", "content": typed, "tool_calls": calls},
                {"role": "tool", "tool_call_id": "1", "content": typed},
            ],
            tools=[tool],
        )
    )
    prompt = await codec.render(
        [message.to_plain() for message in request.messages],
        thinking=True,
        tools=[each.to_plain() for each in request.tools or ()],
    )

    (end,) = codec._tokenizer.encode("</think>", add_special_tokens=False)
    assert end not in prompt.ids
    assert prompt.opened


def test_the_bytes_of_tokens_are_those_of_their_text(codec: VllmCodec) -> None:
    text = "Take 7, plus 5. é ☃ 🙂"

    assert b"".join(codec.token_bytes(token) for token in codec.encode(text)).decode() == text


def test_what_the_tokenizer_is_set_to(codec: VllmCodec) -> None:
    told = json.loads(json.dumps(codec.info()))

    assert told["tokenizer_class"]
    assert told["eos_token"] == "<|im_end|>"
    assert told["model_max_length"] == 2048
    assert "add_generation_prompt" in told["chat_template"]
    assert str(DEMO) not in json.dumps(told)


@pytest.mark.parametrize(
    ("template", "tells"),
    [
        (SHOWS_ALL, True),
        ("{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}", False),
        ("{% if tools %}{{ raise_exception('not here') }}{% endif %}{{ messages }}", True),
    ],
)
async def test_whether_a_template_tells_of_tools(
    tmp_path: Path, template: str, tells: bool
) -> None:
    codec = with_template(tmp_path / "model", template)

    assert await codec.renders_tools() is tells
    assert await codec.renders_tools() is tells
