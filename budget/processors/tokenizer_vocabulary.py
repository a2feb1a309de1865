"""A tokenizer's vocabulary, as budgets need it."""

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
    """The bytes of each of a tokenizer's tokens; none at all, where it does not tell them.

    Args:
        tokenizer: of Hugging Face's kind.
        size: the model's vocabulary, which can be larger than the tokenizer's.
    """
    try:
        known = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size)
    except ValueError as error:
        logger.warning("thinking lands hard, this tokenizer does not tell its bytes: %s", error)
        return []
    return list(known.decoded_vocab)


def atoms_of(tokenizer: Any) -> dict[str, int]:
    """Tokens that stand for themselves, by their text: special ones, and others that were added."""
    return {str(text): token for text, token in tokenizer.get_added_vocab().items() if text}


@lru_cache(maxsize=4)
def read_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """The text of a tokenizer's tokens, where it tells; see `token_bytes`."""
    tokens = token_bytes(tokenizer, size)
    atoms = frozenset(atoms_of(tokenizer).values())
    return Vocabulary.from_bytes(tokens, atoms) if tokens else UNKNOWN_VOCABULARY


def vocabulary_of(config: "VllmConfig") -> Vocabulary:
    """The vocabulary of the model that an engine is configured for."""
    tokenizer = cached_tokenizer_from_config(config.model_config)
    return read_vocabulary(tokenizer, config.model_config.get_vocab_size())
