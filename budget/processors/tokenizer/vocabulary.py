"""Extracts the vocabulary from a tokenizer."""

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import xgrammar
from vllm.tokenizers import cached_tokenizer_from_config

from proctor.budget.vocabulary import UNKNOWN_VOCABULARY, Vocabulary

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = logging.getLogger(__name__)


def token_bytes(tokenizer: Any, size: int | None = None) -> list[bytes]:
    """Return the bytes of each token by id; empty if the tokenizer does not expose them.

    Args:
        tokenizer: a Hugging Face tokenizer.
        size: the size of the model's vocabulary, which can exceed the tokenizer's.
    """
    try:
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size)
    except ValueError as error:
        logger.warning(
            "the tokenizer does not expose the bytes of its tokens (%s): thinking is closed "
            "exactly at its maximum instead of at the end of a sentence",
            error,
        )
        return []
    return list(info.decoded_vocab)


def atoms_of(tokenizer: Any) -> dict[str, int]:
    """Return the ids of added tokens, such as special tokens, by text; they match as a whole."""
    return {str(text): token for text, token in tokenizer.get_added_vocab().items() if text}


@lru_cache(maxsize=4)
def read_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """Return a tokenizer's vocabulary, or the unknown one if it does not expose its bytes."""
    tokens = token_bytes(tokenizer, size)
    atoms = frozenset(atoms_of(tokenizer).values())
    return Vocabulary.from_bytes(tokens, atoms) if tokens else UNKNOWN_VOCABULARY


def vocabulary_of(config: "VllmConfig") -> Vocabulary:
    """Return the vocabulary of an engine's model."""
    tokenizer = cached_tokenizer_from_config(config.model_config)
    return read_vocabulary(tokenizer, config.model_config.get_vocab_size())
