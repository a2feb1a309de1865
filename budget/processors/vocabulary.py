"""A tokenizer's vocabulary, as budgets need it."""

import logging
from typing import TYPE_CHECKING, Any

import xgrammar
from vllm.tokenizers import cached_tokenizer_from_config

from budget.vocabulary import OPAQUE, Vocabulary

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = logging.getLogger(__name__)


def read_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """The text of a tokenizer's tokens, where it tells.

    Args:
        tokenizer: of Hugging Face's kind.
        size: the model's vocabulary, which can be larger than the tokenizer's.
    """
    try:
        known = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size)
    except ValueError as error:
        logger.warning("thinking lands hard, this tokenizer does not tell its bytes: %s", error)
        return OPAQUE
    return Vocabulary.from_bytes(known.decoded_vocab)


def vocabulary_of(config: "VllmConfig") -> Vocabulary:
    """The vocabulary of the model that an engine is configured for."""
    tokenizer = cached_tokenizer_from_config(config.model_config)
    return read_vocabulary(tokenizer, config.model_config.get_vocab_size())
