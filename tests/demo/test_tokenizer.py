import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from proctor.demo.tokenizer import END_THINK, SPECIAL, TEMPLATE_FILE, THINK, VISIBLE, render
from proctor.demo.train import MODEL

tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def encode(text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@given(st.text())
def test_any_text_round_trips(text: str) -> None:
    assert tokenizer.decode(encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize("marker", [*SPECIAL, *VISIBLE])
def test_markers_are_single_tokens(marker: str) -> None:
    assert len(encode(marker)) == 1
    assert encode(f"a{marker}b")[1] == encode(marker)[0]


def test_special_tokens_vanish_from_plain_text_and_tool_markers_stay() -> None:
    text = tokenizer.decode(encode(f"{THINK}a{END_THINK}b<tool_call>"), skip_special_tokens=True)
    assert text == "ab<tool_call>"


def test_digits_and_the_continuation_text_are_single_tokens() -> None:
    assert len(encode("1234567")) == 7
    assert len(encode("Wait")) == 1


def test_the_vocabulary_fits_the_checkpoint() -> None:
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert tokenizer.get_vocab_size() == config["vocab_size"]


PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n"
USER = {"role": "user", "content": "hi"}


def test_the_template_opens_the_thinking_or_closes_it_at_once() -> None:
    assert render([USER]) == PROMPT
    assert render([USER], thinking=False) == PROMPT + "\n</think>\n\n"


def test_past_turns_lose_their_thinking() -> None:
    past = {"role": "assistant", "content": "<think>\nlong\n</think>\n\n42"}
    text = render([USER, past, USER])
    assert "long" not in text
    assert "<|im_start|>assistant\n42<|im_end|>\n" in text


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    assert render([{"role": "user", "content": parts}]) == PROMPT


CALL = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "S"},
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "42"},
]


def test_tools_calls_and_their_results_are_rendered() -> None:
    text = render(TALK, tools=TOOLS)
    assert text.startswith("<|im_start|>system\nS\n\n# Tools\n<tools>\n{")
    assert text.count("<|im_start|>system") == 1
    assert '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>' in text
    assert "<|im_start|>user\n<tool_response>\n42\n</tool_response><|im_end|>" in text


@pytest.fixture(scope="module")
def transformers_render() -> Callable[..., str]:
    """The template of the checkpoint, compiled by transformers."""
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    source = json.loads((MODEL / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = transformers._compile_jinja_template(source["chat_template"])
    return template.render  # type: ignore[no-any-return]


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_transformers_renders_the_same(
    transformers_render: Callable[..., str], thinking: bool, tools: Any
) -> None:
    expected = transformers_render(
        messages=TALK, tools=tools, add_generation_prompt=True, enable_thinking=thinking
    )
    assert expected == render(TALK, thinking, tools=tools)


def test_the_checkpoint_carries_the_template() -> None:
    source = json.loads((MODEL / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert source["chat_template"] == TEMPLATE_FILE.read_text(encoding="utf-8")
