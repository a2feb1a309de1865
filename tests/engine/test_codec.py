"""Conversations rendered by the demo model's tokenizer and chat templates."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource
from proctor.server.config.settings import DEMO
from proctor.server.engines.vllm.codec import VllmCodec
from proctor.server.engines.vllm.tokenizer_bundle import load_local
from proctor.server.schemas.generation import ChatRequest
from tests.server.harness import body

pytestmark = pytest.mark.engine

FULL_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}{% if m.reasoning_content %}|{{ m.reasoning_content }}"
    "{% endif %}|{{ m.content }}{% for c in m.tool_calls or [] %}|{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}]{% endfor %}"
    "{% for t in tools or [] %}({{ t.function.name }}: {{ t.function.description }}){% endfor %}"
)


MARKERS = MarkerSource(start="<think>", end="</think>")


def load(folder: Path) -> VllmCodec:
    loaded = load_local(str(folder), MARKERS, "hermes").codec
    assert isinstance(loaded, VllmCodec)
    return loaded


@pytest.fixture(scope="module")
def codec() -> VllmCodec:
    return load(DEMO / "model")


def with_template(folder: Path, template: str) -> VllmCodec:
    """Return a codec with another template, in its own folder because vLLM caches templates."""
    shutil.copytree(DEMO / "model", folder)
    config = folder / "tokenizer_config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "chat_template": template}))
    return load(folder)


@pytest.fixture(scope="module")
def full_codec(tmp_path_factory: pytest.TempPathFactory) -> VllmCodec:
    return with_template(tmp_path_factory.mktemp("models") / "model", FULL_TEMPLATE)


async def rendered(codec: VllmCodec, **fields: Any) -> str:
    request = ChatRequest.model_validate(body(**fields))
    tools = [tool.to_plain() for tool in request.tools or ()]
    messages = [message.to_plain() for message in request.messages]
    prompt = await codec.render(messages, thinking=True, tools=tools)
    text: str = codec._tokenizer.decode(prompt.ids)
    return text


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
async def test_the_template_receives_the_thinking_of_earlier_turns(
    full_codec: VllmCodec, field: str
) -> None:
    messages = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", field: "two twos"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]

    assert (
        await rendered(full_codec, messages=messages)
        == "[user|2+2?][assistant|two twos|4][user|a\nb]"
    )


async def test_the_template_receives_calls_and_results_of_earlier_turns(
    full_codec: VllmCodec,
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

    text = await rendered(full_codec, messages=messages)

    assert text == '[user|Go.][assistant||f{"a": "☃"}|g{}][tool|12]'


async def test_special_tokens_in_messages_and_tools_remain_text(codec: VllmCodec) -> None:
    markers = "</think><|im_end|>"
    calls = [{"id": "1", "function": {"name": "f", "arguments": '{"a": "\\u003c/think>"}'}}]
    tool = {"type": "function", "function": {"name": "f", "description": markers}}
    request = ChatRequest.model_validate(
        body(
            messages=[
                {"role": "user", "content": markers},
                {"role": "assistant", "content": markers, "tool_calls": calls},
                {"role": "tool", "tool_call_id": "1", "content": markers},
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


def test_the_bytes_of_the_tokens_of_a_text_add_up_to_its_encoding(codec: VllmCodec) -> None:
    text = "Take 7, plus 5. é ☃ 🙂"

    assert b"".join(codec.token_bytes(token) for token in codec.encode(text)).decode() == text


def test_info_describes_the_tokenizer_without_local_paths(codec: VllmCodec) -> None:
    info = json.loads(json.dumps(codec.info()))

    assert info["tokenizer_class"]
    assert info["eos_token"] == "<|im_end|>"
    assert info["model_max_length"] == 2048
    assert "add_generation_prompt" in info["chat_template"]
    assert str(DEMO) not in json.dumps(info)


@pytest.mark.parametrize(
    ("template", "renders"),
    [
        (FULL_TEMPLATE, True),
        ("{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}", False),
        ("{% if tools %}{{ raise_exception('not here') }}{% endif %}{{ messages }}", True),
    ],
)
async def test_templates_that_render_tools_are_recognized(
    tmp_path: Path, template: str, renders: bool
) -> None:
    codec = with_template(tmp_path / "model", template)

    assert await codec.renders_tools() is renders
    assert await codec.renders_tools() is renders
