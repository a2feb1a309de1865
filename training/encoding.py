"""Examples as token ids, and which of them the loss is taken of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proctor.training.chat_template import opens_thinking, renders_thinking
from proctor.training.examples import DataError, Example, Markers

MULTIPLE = 64
"""Default block sizes are a multiple of this, as kernels prefer it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tokenized example.

    Attributes:
        input_ids: the prompt as the server sends it, then what the model is to generate.
        completion_mask: for each token 1 if the model is to generate it, or 0: where the loss is.
    """

    input_ids: list[int]
    completion_mask: list[int]


def encode(tokenizer: Any, example: Example, markers: Markers) -> Encoded:
    """Tokenize an example in the tokenizer's chat template.

    The loss is taken of the thinking, the end marker, the answer and the end of the turn; of the
    start marker only if the generation prompt does not write it.

    Raises:
        ValueError: if the template does not render the turn after its generation prompt.
    """
    prompt = _render(tokenizer, example.messages, add_generation_prompt=True)
    turn = _turn(tokenizer, example, markers, prompt)
    prompt_ids = _ids(tokenizer, prompt)
    ids = _ids(tokenizer, prompt + turn)
    # A server tokenizes the prompt alone, so a token must not reach over its end.
    if ids[: len(prompt_ids)] != prompt_ids:
        ids = prompt_ids + _ids(tokenizer, turn)
    ids = _ended(ids, len(prompt_ids), tokenizer.eos_token_id)
    return Encoded(ids, [0] * len(prompt_ids) + [1] * (len(ids) - len(prompt_ids)))


def _turn(tokenizer: Any, example: Example, markers: Markers, prompt: str) -> str:
    """Return what the model is to write after the prompt."""
    thinking, answer = example.thinking, example.answer
    if not renders_thinking(tokenizer, markers) and opens_thinking(tokenizer, markers):
        # The template leaves out the thinking of all turns, which the server then never renders.
        opening = "" if prompt.endswith("\n") else "\n"
        return f"{opening}{thinking}\n{markers.end}\n\n{answer}"
    turn = {"role": "assistant", "content": answer, "reasoning_content": thinking}
    whole = _render(tokenizer, [*example.messages, turn])
    if not whole.startswith(prompt):
        raise ValueError("the chat template does not render a turn after its generation prompt")
    return whole[len(prompt) :]


def _render(tokenizer: Any, messages: Sequence[Any], **options: Any) -> str:
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    return text


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _ended(ids: list[int], start: int, eos: int) -> list[int]:
    """Return the ids up to the last end of turn after `start`; add one if there is none.

    Templates write a line break after it, which is never generated.
    """
    for index in range(len(ids) - 1, start - 1, -1):
        if ids[index] == eos:
            return ids[: index + 1]
    return [*ids, eos]


def choose_block_size(lengths: Sequence[int], wanted: int | None, context: int) -> int:
    """Return the tokens that every example fits in.

    Args:
        lengths: the tokens of each example.
        wanted: the size that was asked for, or None for the smallest possible.
        context: the most tokens that the model supports.

    Raises:
        DataError: if an example would be cut.
    """
    longest = max(lengths)
    if longest > context:
        raise DataError(
            f"the longest example has {longest} tokens, the model's context {context}: remove the "
            f"{_count_over(lengths, context)} longer examples, or train a model with more"
        )
    if wanted is None:
        return min(context, -(-longest // MULTIPLE) * MULTIPLE)
    if wanted < longest:
        raise DataError(
            f"--block-size: {wanted} would cut {_count_over(lengths, wanted)} of {len(lengths)} "
            f"examples before their answer; the longest has {longest} tokens"
        )
    if wanted > context:
        raise DataError(f"--block-size: {wanted} is more than the model's context, {context}")
    return wanted


def _count_over(lengths: Sequence[int], limit: int) -> int:
    return sum(length > limit for length in lengths)
