"""The demo model's tokenizer: byte-level BPE with single digits, and the chat template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 448
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THINK, END_THINK = "<think>", "</think>"
SPECIAL = (END_OF_TEXT, IM_START, IM_END, THINK, END_THINK)
# Not special tokens, as in Qwen3: tool parsers read them from the decoded text.
VISIBLE = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
# Words include the space before or after them; digits, and spaces before digits, are separate.
PIECES = r" ?[^\s\d]+ ?|\d|\n+|\s"
TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train a tokenizer on texts; the special tokens have the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL]
        + [AddedToken(t, special=False, normalized=False) for t in VISIBLE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in VISIBLE])
    return tokenizer


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)  # as in transformers
    return environment.from_string(TEMPLATE_FILE.read_text(encoding="utf-8"))


def render(messages: Sequence[Mapping[str, Any]], thinking: bool = True, **extra: Any) -> str:
    """Render the prompt, as a server does."""
    return _template().render(
        messages=messages, add_generation_prompt=True, enable_thinking=thinking, **extra
    )


def tokenizer_config() -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`, which includes the chat template."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [IM_START, THINK, END_THINK],
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE_FILE.read_text(encoding="utf-8"),
    }
