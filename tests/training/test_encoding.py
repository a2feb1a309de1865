"""Which tokens have a loss, one by one, and the block size."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor.training.chat_template import ensure_thinking
from proctor.training.encoding import choose_block_size, encode
from proctor.training.examples import DataError, Example
from tests.training.conftest import IM_END, THINK, make_tokenizer

PROMPT = "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n"
QUESTION = {"role": "user", "content": "2 + 3?"}
EXAMPLE = Example((QUESTION,), "2 and 3 make 5.", "5")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1).filter(str.strip)


@pytest.fixture
def thinking_tokenizer(tokenizer: Any) -> Any:
    ensure_thinking(tokenizer, THINK)
    return tokenizer


def test_only_the_turn_has_a_loss_token_by_token(thinking_tokenizer: Any) -> None:
    encoded = encode(thinking_tokenizer, EXAMPLE, THINK)
    tokens = [
        (thinking_tokenizer.decode([token]), mask)
        for token, mask in zip(encoded.input_ids, encoded.completion_mask, strict=True)
    ]
    prompt = [
        "<|im_start|>",
        *"user\n2 + 3?",
        IM_END,
        "\n",
        "<|im_start|>",
        *"assistant\n<think>\n",
    ]
    turn = [*"2 and 3 make 5.\n</think>\n\n5", IM_END]
    assert tokens == [(each, 0) for each in prompt] + [(each, 1) for each in turn]


def test_the_start_marker_has_a_loss_if_the_prompt_does_not_open_the_thinking(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% if message.reasoning_content %}"
        "<think>{{ message.reasoning_content }}</think>{% endif %}"
        "{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    encoded = encode(tokenizer, EXAMPLE, THINK)
    start = encoded.completion_mask.index(1)
    assert tokenizer.decode(encoded.input_ids[:start]) == PROMPT
    assert tokenizer.decode(encoded.input_ids[start:]) == (
        "<think>2 and 3 make 5.</think>5<|im_end|>"
    )


def test_templates_that_open_the_thinking_and_leave_it_out_are_continued(tokenizer: Any) -> None:
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{{ message.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>NEWLINE{% endif %}"
    )
    for newline in ("\n", ""):
        tokenizer.chat_template = template.replace("NEWLINE", newline)
        assert not ensure_thinking(tokenizer, THINK)
        encoded = encode(tokenizer, EXAMPLE, THINK)
        start = encoded.completion_mask.index(1)
        assert tokenizer.decode(encoded.input_ids[:start]) == f"{PROMPT}<think>{newline}"
        assert tokenizer.decode(encoded.input_ids) == (
            f"{PROMPT}<think>\n2 and 3 make 5.\n</think>\n\n5<|im_end|>"
        )


def test_an_end_of_turn_is_added_if_the_template_writes_none(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    encoded = encode(tokenizer, EXAMPLE, THINK)
    assert tokenizer.decode(encoded.input_ids) == "2 + 3?\n5\n<|im_end|>"


def test_the_prompt_is_tokenized_as_a_server_does(tokenizer: Any) -> None:
    """Without the turn after it, whose first characters could merge with its last."""
    merging = make_tokenizer()
    merging.backend_tokenizer.model = type(merging.backend_tokenizer.model)(
        {**merging.get_vocab(), "ĊĊ": 258}, [("Ċ", "Ċ")]
    )
    ensure_thinking(merging, THINK)
    example = Example((QUESTION,), "x", "5")
    spelled = merging("<think>\n", add_special_tokens=False)["input_ids"]
    encoded = encode(merging, example, THINK)
    start = encoded.completion_mask.index(1)
    assert encoded.input_ids[start - len(spelled) : start] == spelled


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=TEXTS, thinking=TEXTS, answer=TEXTS)
def test_any_text_is_learned_whole(
    thinking_tokenizer: Any, question: str, thinking: str, answer: str
) -> None:
    messages = ({"role": "user", "content": question},)
    encoded = encode(thinking_tokenizer, Example(messages, thinking.strip(), answer.strip()), THINK)
    start = encoded.completion_mask.index(1)
    assert all(encoded.completion_mask[start:])
    learned = thinking_tokenizer.decode(encoded.input_ids[start:])
    assert learned == f"{thinking.strip()}\n</think>\n\n{answer.strip()}{IM_END}"


def test_templates_that_rewrite_the_generation_prompt_are_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}Think!{% endif %}"
    )
    with pytest.raises(ValueError, match="after its generation prompt"):
        encode(tokenizer, EXAMPLE, THINK)


def test_the_default_block_size_holds_the_longest() -> None:
    assert choose_block_size([10, 129], None, 8192) == 192
    assert choose_block_size([128], None, 8192) == 128
    assert choose_block_size([129], None, 150) == 150
    assert choose_block_size([100, 129], 129, 8192) == 129


@pytest.mark.parametrize(
    ("wanted", "context", "error"),
    [
        (128, 8192, "128 would cut 2 of 3 examples before their answer; the longest has 300"),
        (9000, 8192, "9000 is more than the model's context, 8192"),
        (None, 256, "the longest example has 300 tokens, the model's context 256: remove the 1"),
    ],
)
def test_a_block_size_that_cuts_examples_is_refused(
    wanted: int | None, context: int, error: str
) -> None:
    with pytest.raises(DataError, match=error):
        choose_block_size([100, 200, 300], wanted, context)
