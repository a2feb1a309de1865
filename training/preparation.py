"""Prepares what a run reads: the tokenizer with its markers and template, and the data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctor.training.chat_template import ensure_thinking
from proctor.training.encoding import Encoded
from proctor.training.examples import Markers


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is ready to be trained.

    Attributes:
        model: its path or Hugging Face name; a new checkpoint if tokens were added.
        tokenizer: its tokenizer, with the markers and the chat template.
        context: the most tokens that it supports.
        added: the markers that are new tokens.
    """

    model: str
    tokenizer: Any
    context: int
    added: tuple[str, ...]


def prepare_model(
    model: str, markers: Markers, out: Path, *, as_tokens: bool, may_add: bool
) -> Prepared:
    """Load a tokenizer, and write markers and template into it.

    Args:
        model: path or Hugging Face name.
        markers: the texts around the thinking.
        out: the run's folder; the tokenizer is saved there, and the model if tokens are added.
        as_tokens: whether each marker is to be one token.
        may_add: whether tokens may be added, which need embeddings that are trained.

    Raises:
        OSError: if there is no such model.
        ValueError: if the chat template cannot be changed, or tokens must not be added.
    """
    from transformers import AutoConfig, AutoTokenizer

    config: Any = AutoConfig.from_pretrained(model).get_text_config()
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    if tokenizer.eos_token_id is None:
        raise ValueError("the model's tokenizer has no end-of-sequence token")
    pieces = {text: tokenizer.encode(text, add_special_tokens=False) for text in _texts(markers)}
    added = tuple(text for text, ids in pieces.items() if as_tokens and len(ids) > 1)
    if added and not may_add:
        raise ValueError(
            f"--markers tokens would add {' and '.join(added)}, and --method lora does not train "
            "the embeddings of new tokens: use --markers text, or --method full"
        )
    ensure_thinking(tokenizer, markers)
    if added:
        tokenizer.add_tokens(list(added))
        _add_embeddings(model, tokenizer, {text: pieces[text] for text in added}, out / "base")
        model = str(out / "base")
    tokenizer.save_pretrained(out / "tokenizer")
    return Prepared(model, tokenizer, config.max_position_embeddings, added)


def _texts(markers: Markers) -> tuple[str, str]:
    return markers.start, markers.end


def _add_embeddings(model: str, tokenizer: Any, pieces: dict[str, list[int]], out: Path) -> None:
    """Save the model with embeddings of new tokens: the means of the pieces of their texts."""
    import torch
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(model)
    if len(tokenizer) > len(network.get_input_embeddings().weight):
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in (network.get_input_embeddings(), network.get_output_embeddings()):
            for text, old in pieces.items():
                token = tokenizer.convert_tokens_to_ids(text)
                layer.weight[token] = layer.weight[old].mean(dim=0)
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)


def write_data(path: Path, examples: Sequence[Encoded]) -> None:
    """Write tokenized examples as the JSON lines that TRL reads."""
    with path.open("w", encoding="utf-8") as file:
        for each in examples:
            row = {"input_ids": each.input_ids, "completion_mask": each.completion_mask}
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
