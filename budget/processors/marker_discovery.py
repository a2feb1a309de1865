"""Which markers a model thinks between: named, from vLLM's parsers, or from the template."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from vllm.reasoning import ReasoningParserManager

from proctor.budget.markers import Markers
from proctor.budget.processors.tokenizer_vocabulary import atoms_of
from proctor.budget.vocabulary import ATOM

TEMPLATE_PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<ifm|think>", "</ifm|think>"),
    ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|im_start|>think", "<|im_start|>answer"),
)
"""Marker strings to look for in a chat template that no one named a parser for."""


SPELLED_IN_SEVERAL_WAYS = frozenset({"olmo3"})
"""Parsers of models that write their end marker in ordinary tokens, not always the same."""


def find_marker_texts(
    tokenizer: Any, *, start: str | None, end: str | None, parser: str | None
) -> tuple[str, str]:
    """The start and end marker as text: as given, else the parser's, else the template's.

    Raises:
        ValueError: if none can be found, or a named parser does not exist or
            has none; the text says what to set.
    """
    if start and end:
        return start, end
    if start or end:
        raise ValueError("thinking_start and thinking_end must be set together")
    if parser:
        return _of_parser(tokenizer, parser)
    template = tokenizer.chat_template or ""
    for pair in TEMPLATE_PAIRS:
        if all(text in template for text in pair):
            return pair
    raise ValueError(
        "the chat template shows no thinking markers that are known: set reasoning_parser to one "
        "of vLLM's reasoning parsers, or set thinking_start and thinking_end"
    )


def encode_markers(tokenizer: Any, texts: tuple[str, str], eos: Collection[int]) -> Markers:
    """Marker texts as token ids, and as what to look for in a text of any tokens."""
    start, end = (tuple(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    atoms = atoms_of(tokenizer)
    symbols = [_symbols(text, atoms) for text in texts]
    return Markers(start, end, frozenset(eos), *symbols)


def _symbols(text: str, atoms: Mapping[str, int]) -> tuple[int, ...]:
    """A text in symbols: added tokens whole, the rest in bytes."""
    if not atoms:
        return tuple(text.encode())
    longest_first = sorted(atoms, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    return tuple(
        symbol
        for part in parts
        for symbol in ([ATOM + atoms[part]] if part in atoms else part.encode())
    )


def _of_parser(tokenizer: Any, name: str) -> tuple[str, str]:
    if name in SPELLED_IN_SEVERAL_WAYS:
        raise ValueError(
            f"reasoning_parser {name} has an end marker of several spellings, and a budget follows "
            "only one: set thinking_start and thinking_end to follow that one alone"
        )
    try:
        kind = ReasoningParserManager.get_reasoning_parser(name)
    except KeyError as error:
        raise ValueError(f"reasoning_parser: {error.args[0]}") from error
    try:
        # Some parsers have markers only where a request's template is told to think.
        parser = kind(tokenizer, chat_template_kwargs={"thinking": True, "enable_thinking": True})
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"reasoning_parser {name} does not fit this model ({error}): set thinking_start and "
            "thinking_end"
        ) from error
    start, end = parser.reasoning_start_str, parser.reasoning_end_str
    if not start or not end:
        raise ValueError(
            f"reasoning_parser {name} names no markers: set thinking_start and thinking_end"
        )
    return start, end
