"""Thinking in chat templates that had none."""

from typing import Any

import pytest

from proctor.training.chat_template import ensure_thinking, renders_thinking, with_thinking
from proctor.training.examples import Markers
from tests.training.conftest import THINK


def render(tokenizer: Any, *messages: dict[str, Any], **options: Any) -> str:
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    return text


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, thinking: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "reasoning_content": thinking}


@pytest.fixture
def thinking_tokenizer(tokenizer: Any) -> Any:
    assert ensure_thinking(tokenizer, THINK)
    return tokenizer


def test_the_last_turn_is_rendered_with_its_thinking(thinking_tokenizer: Any) -> None:
    assert render(thinking_tokenizer, user("2 + 3?"), assistant("5", "2 and 3 make 5.")) == (
        "<|im_start|>user\n2 + 3?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n2 and 3 make 5.\n</think>\n\n5<|im_end|>\n"
    )


def test_the_generation_prompt_opens_the_thinking_or_disables_it(thinking_tokenizer: Any) -> None:
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    asked = {"add_generation_prompt": True}
    assert render(thinking_tokenizer, user("Hi"), **asked) == prompt
    assert render(thinking_tokenizer, user("Hi"), enable_thinking=True, **asked) == prompt
    disabled = render(thinking_tokenizer, user("Hi"), enable_thinking=False, **asked)
    assert disabled == f"{prompt}\n</think>\n\n"


def test_thinking_of_earlier_turns_is_left_out(thinking_tokenizer: Any) -> None:
    messages = [
        user("Hi"),
        assistant("Hello", "They greet me."),
        user("Hi"),
        assistant("<think>\nAgain.\n</think>\n\nHello again"),
        user("Hi"),
    ]
    text = render(thinking_tokenizer, *messages, assistant("Yes?", "A third time."))
    assert text.count("<think>") == 1
    assert "<|im_start|>assistant\nHello<|im_end|>" in text
    assert "<|im_start|>assistant\nHello again<|im_end|>" in text
    assert "<think>\nA third time.\n</think>\n\nYes?<|im_end|>" in text


def test_a_template_that_renders_thinking_is_left_as_it_is(thinking_tokenizer: Any) -> None:
    template = thinking_tokenizer.chat_template
    assert not ensure_thinking(thinking_tokenizer, THINK)
    assert thinking_tokenizer.chat_template == template
    assert not renders_thinking(thinking_tokenizer, Markers("[THINK]", "[/THINK]"))


def test_whitespace_at_the_end_of_a_template_stays(tokenizer: Any) -> None:
    tokenizer.chat_template = with_thinking("{{ messages[0].content }}\nAnswer: \n", THINK)
    text = render(tokenizer, user("Hi"), add_generation_prompt=True)
    assert text == "Hi\nAnswer: <think>\n"


def test_markers_may_contain_quotes(tokenizer: Any) -> None:
    markers = Markers("<\"think'>", "</\"think'>")
    assert ensure_thinking(tokenizer, markers)
    assert markers.end in render(tokenizer, user("Hi"), assistant("5", "so"))


def test_templates_that_cannot_be_changed_are_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }}{% endfor %}"
    with pytest.raises(ValueError, match="rewrites the content"):
        ensure_thinking(tokenizer, THINK)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        ensure_thinking(tokenizer, THINK)
