"""Checks that Proctor can serve a checkpoint: its template renders, and its markers are found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctor.budget.budgets import TokenBudget
from proctor.budget.machine import BudgetStateMachine, Label
from proctor.budget.markers import Markers as TokenMarkers
from proctor.budget.vocabulary import Vocabulary
from proctor.training.chat_template import CONVERSATION, PROBE
from proctor.training.encoding import encode
from proctor.training.examples import Example, Markers


class CheckError(ValueError):
    """A checkpoint cannot be served with budgets; the message says why."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a server finds in a checkpoint.

    Attributes:
        start: the start marker, as text.
        end: the end marker, as text.
        marker_tokens: the tokens of each.
        opened: whether the generation prompt opens the thinking.
        thinking: the thinking tokens that a budget counts in an example turn.
    """

    start: str
    end: str
    marker_tokens: tuple[int, int]
    opened: bool
    thinking: int


def check_checkpoint(model: Path, markers: Markers | None = None) -> Findings:
    """Load a checkpoint's tokenizer and settings as the server does, and count an example's budget.

    Args:
        model: the folder.
        markers: the settings `thinking_start` and `thinking_end`; None looks for the markers in the
            chat template.

    Raises:
        CheckError: if there are no markers, the template does not render thinking between them, or
            a budget would not find it.
        ImportError: if vLLM is not installed.
    """
    if not model.is_dir():
        raise CheckError(f"{model} is no folder")

    from vllm.engine.arg_utils import AsyncEngineArgs

    from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource, find_markers
    from proctor.budget.processors.tokenizer.vocabulary import read_vocabulary

    try:
        tokenizer = _load_tokenizer(model)
        config = AsyncEngineArgs(model=str(model)).create_model_config()
        source = MarkerSource(markers.start, markers.end) if markers else MarkerSource()
        texts, token_markers = find_markers(tokenizer, config, source)
    except (OSError, ValueError) as error:
        raise CheckError(f"{model}: {error}") from error
    size = config.get_vocab_size()
    if len(tokenizer) > size:
        raise CheckError(f"{model}: {len(tokenizer)} tokens, but embeddings of {size}")
    vocabulary = read_vocabulary(tokenizer, size)
    return count_example(tokenizer, Markers(*texts), token_markers, vocabulary)


def _load_tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def count_example(
    tokenizer: Any, texts: Markers, markers: TokenMarkers, vocabulary: Vocabulary
) -> Findings:
    """Return what a budget counts in a turn that the template renders.

    Raises:
        CheckError: if the thinking is not found, or does not end before the answer.
    """
    user, turn = CONVERSATION
    encoded = encode(tokenizer, Example((user,), PROBE, turn["content"]), texts)
    start = encoded.completion_mask.index(1)
    prompt = tokenizer.decode(encoded.input_ids[:start])
    opened = prompt.rfind(texts.start) > prompt.rfind(texts.end)
    machine = BudgetStateMachine(TokenBudget(opened=opened), markers, vocabulary)
    labelled = [each for token in encoded.input_ids[start:-1] for each in machine.advance(token)]
    thinking, answer = (
        tokenizer.decode([each.token for each in labelled if each.label is label])
        for label in (Label.THINKING, Label.ANSWER)
    )
    if machine.thinking:
        raise CheckError(f"the chat template does not close the thinking with {texts.end!r}")
    if thinking.strip() != PROBE or answer.strip() != turn["content"]:
        raise CheckError(
            f"between {texts.start!r} and {texts.end!r} a budget finds the thinking {thinking!r} "
            f"and the answer {answer!r}, not {PROBE!r} and {turn['content']!r}"
        )
    lengths = len(markers.start), len(markers.end)
    return Findings(texts.start, texts.end, lengths, opened, machine.tokens)
