"""What Proctor finds in a checkpoint, and the tokens and template that are written into it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proctor.budget.processors.tokenizer.marker_discovery import encode_markers
from proctor.budget.vocabulary import UNKNOWN_VOCABULARY
from proctor.training.chat_template import PROBE, ensure_thinking
from proctor.training.check import CheckError, Findings, check_checkpoint, count_example
from proctor.training.examples import Markers
from proctor.training.preparation import prepare_model
from tests.training.conftest import THINK

BRACKETS = Markers("[reason]", "[/reason]")
SPELLED = len(THINK.start), len(THINK.end)
"""The tokens of the markers in a vocabulary of bytes."""


@pytest.fixture
def checkpoint(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, with thinking in its chat template."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ensure_thinking(tokenizer, THINK)
    tokenizer.save_pretrained(folder)
    return folder


# A line break before the end marker counts as thinking, as does that after the start marker if the
# prompt does not contain it.
THINKING_TOKENS = len(f"{PROBE}\n")


def test_markers_of_text_are_found_in_the_template(checkpoint: Path) -> None:
    found = check_checkpoint(checkpoint)
    assert found == Findings(THINK.start, THINK.end, SPELLED, True, THINKING_TOKENS)
    assert check_checkpoint(checkpoint, THINK) == found


def test_a_checkpoint_without_markers_is_refused(tiny_model: Path) -> None:
    with pytest.raises(CheckError, match="no known thinking markers"):
        check_checkpoint(tiny_model)


def test_a_template_that_does_not_render_the_thinking_is_refused(tiny_model: Path) -> None:
    with pytest.raises(CheckError, match="a budget finds the thinking '' and the answer '12'"):
        check_checkpoint(tiny_model, THINK)


def test_other_markers_than_those_trained_with_are_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckError, match="a budget finds the thinking"):
        check_checkpoint(checkpoint, BRACKETS)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=tmp_path.name):
        check_checkpoint(tmp_path)


def test_a_template_that_never_closes_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.content }}"
        "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}{% endif %}"
        "{% endfor %}"
    )
    markers = encode_markers(tokenizer, (THINK.start, THINK.end), {tokenizer.eos_token_id})
    with pytest.raises(CheckError, match="does not close the thinking"):
        count_example(tokenizer, THINK, markers, UNKNOWN_VOCABULARY)


def test_markers_become_tokens_with_the_means_of_their_texts(
    tiny_model: Path, tmp_path: Path
) -> None:
    prepared = prepare_model(str(tiny_model), THINK, tmp_path, as_tokens=True, may_add=True)
    assert prepared.added == (THINK.start, THINK.end)
    assert prepared.model == str(tmp_path / "base")
    found = check_checkpoint(tmp_path / "base")
    assert found.marker_tokens == (1, 1)
    before: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    after: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    old, new = before.get_input_embeddings().weight, after.get_input_embeddings().weight
    assert torch.equal(new[: len(old)], old)
    spelled = AutoTokenizer.from_pretrained(tiny_model)(THINK.end)["input_ids"]
    torch.testing.assert_close(new[-1], old[spelled].mean(dim=0))
    assert after.get_output_embeddings().weight is after.get_input_embeddings().weight


def test_markers_that_are_tokens_already_are_not_added(tiny_model: Path, tmp_path: Path) -> None:
    prepare_model(str(tiny_model), THINK, tmp_path, as_tokens=True, may_add=True)
    base, out = str(tmp_path / "base"), tmp_path / "again"
    prepared = prepare_model(base, THINK, out, as_tokens=True, may_add=False)
    assert (prepared.added, prepared.model) == ((), base)


def test_tokens_are_not_added_beside_adapters(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"would add <think> and </think>, and --method lora"):
        prepare_model(str(tiny_model), THINK, tmp_path, as_tokens=True, may_add=False)


def test_markers_of_text_leave_the_model_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    prepared = prepare_model(str(tiny_model), THINK, tmp_path, as_tokens=False, may_add=False)
    assert (prepared.model, prepared.added, prepared.context) == (str(tiny_model), (), 512)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
    template = (tmp_path / "tokenizer" / "chat_template.jinja").read_text()
    assert template == prepared.tokenizer.chat_template
