"""Finds a model's thinking markers: from settings, vLLM's parsers, or the chat template."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vllm.config import ModelConfig
from vllm.reasoning import ReasoningParserManager

from proctor.budget.marker_texts import template_markers
from proctor.budget.markers import Markers
from proctor.budget.processors.tokenizer.vocabulary import atoms_of
from proctor.budget.vocabulary import ATOM

AMBIGUOUS_PARSERS = frozenset({"olmo3"})
"""Parsers of models whose end marker is ordinary text with several spellings."""


@dataclass(frozen=True, slots=True)
class MarkerSource:
    """The source of the thinking markers: their texts, or the name of a reasoning parser of vLLM.

    If nothing is set, the markers are discovered in the chat template.
    """

    start: str | None = None
    end: str | None = None
    parser: str | None = None


def find_markers(
    tokenizer: Any, config: ModelConfig, source: MarkerSource
) -> tuple[tuple[str, str], Markers]:
    """Return the texts of the start and end marker, and the markers as token ids.

    Raises:
        ValueError: if no markers are found, or the parser does not exist or has no markers; the
            message names the settings.
    """
    texts = find_marker_texts(tokenizer, start=source.start, end=source.end, parser=source.parser)
    return texts, encode_markers(tokenizer, texts, _end_of_turn(tokenizer, config))


def _end_of_turn(tokenizer: Any, config: ModelConfig) -> set[int]:
    """Return the tokens that end a turn: the tokenizer's and the generation config's."""
    eos = config.try_get_generation_config().get("eos_token_id", [])
    return {tokenizer.eos_token_id, *([eos] if isinstance(eos, int) else eos)} - {None}


def find_marker_texts(
    tokenizer: Any, *, start: str | None, end: str | None, parser: str | None
) -> tuple[str, str]:
    """Return the texts of the start and end marker.

    Args:
        tokenizer: the model's tokenizer.
        start: the setting `thinking_start`.
        end: the setting `thinking_end`.
        parser: the setting `reasoning_parser`, used if `start` and `end` are not set.
            If it is not set either, the chat template is searched.

    Raises:
        ValueError: if no markers are found, or the parser does not exist or has no
            markers; the message names the settings.
    """
    if start and end:
        return start, end
    if start or end:
        raise ValueError("thinking_start and thinking_end must be set together")
    if parser:
        return _parser_markers(tokenizer, parser)
    if pair := template_markers(tokenizer.chat_template or ""):
        return pair
    raise ValueError(
        "the chat template has no known thinking markers: set reasoning_parser to one of vLLM's "
        "reasoning parsers, or set thinking_start and thinking_end"
    )


def encode_markers(tokenizer: Any, texts: tuple[str, str], eos: Collection[int]) -> Markers:
    """Encode the texts of the markers as token ids and as symbols."""
    start, end = (tuple(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    atoms = atoms_of(tokenizer)
    symbols = [_symbols(text, atoms) for text in texts]
    return Markers(start, end, frozenset(eos), *symbols)


def _symbols(text: str, atoms: Mapping[str, int]) -> tuple[int, ...]:
    """Convert a text to symbols: added tokens as a whole, the rest as bytes."""
    if not atoms:
        return tuple(text.encode())
    longest_first = sorted(atoms, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    return tuple(
        symbol
        for part in parts
        for symbol in ([ATOM + atoms[part]] if part in atoms else part.encode())
    )


def _parser_markers(tokenizer: Any, name: str) -> tuple[str, str]:
    if name in AMBIGUOUS_PARSERS:
        raise ValueError(
            f"reasoning_parser {name} has an end marker with several spellings, of which budgets "
            "support only one: set thinking_start and thinking_end to that one"
        )
    try:
        kind = ReasoningParserManager.get_reasoning_parser(name)
    except KeyError as error:
        raise ValueError(f"reasoning_parser: {error.args[0]}") from error
    try:
        # Some parsers have markers only if the chat template enables thinking.
        parser = kind(tokenizer, chat_template_kwargs={"thinking": True, "enable_thinking": True})
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"reasoning_parser {name} does not fit this model ({error}): set thinking_start and "
            "thinking_end instead"
        ) from error
    start, end = parser.reasoning_start_str, parser.reasoning_end_str
    if not start or not end:
        raise ValueError(
            f"reasoning_parser {name} has no markers: set thinking_start and thinking_end instead"
        )
    return start, end
