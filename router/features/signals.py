"""Extracts numeric signals from a prompt; `signal_texts` describes each to a reader."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from proctor.router.conversation import HEAD, TAIL
from proctor.router.features import lexicon
from proctor.router.features.lexicon import Hits, words_of
from proctor.router.features.parsing import ParsedPrompt
from proctor.router.features.signal_texts import FIRST, LAST

_NUMBER = re.compile(r"\d[\d,.]*")
_OPERATOR = re.compile(r"[=+*/<>≤≥≠×÷±√∑∏∫∂→⇒∈∉⊂∪∩∀∃∞≡≈−]")
_LATEX = re.compile(r"\\[A-Za-z]+")
_POWER = re.compile(r"[\d*^²³⁴ⁿ](?:(?<=[\^²³⁴ⁿ])|(?<=\*)\*|(?<=1)0\^?\d|(?<=\d)[eE]\d)")
_NO_VARIABLE = "ai"
_OPTION = re.compile(r"[).:：）、](?<=[A-Fa-f].)(?<![^\s(（]..)(?=\s*\S)")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_STOP = re.compile(r"[.!?。！？؟।\n]+(?!\d)")
_NUMERIC_SENTENCE = re.compile(r"\d[^.!?。！？؟।\n]*(?:\.(?=\d)[^.!?。！？؟।\n]*)*")
_QUESTION = re.compile(r"[?？؟]")
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf:;](?:(?<![:;])|-?[)D(])")
_SYMBOL = re.compile(r"[{}()\[\];=<>_#|\\]")
_LONG_WORD = 9
_NAME = re.compile(r" (?<=[a-z,] )[A-Z][a-z]")
_DENSE = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f]+")
_SMALL_NUMBER = frozenset(
    {"two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
    | {"twenty", "thirty", "fifty", "hundred"}
)
_DENSE_PER_WORD = 1.7
"""Average characters per word in scripts without spaces."""


@dataclass(frozen=True, slots=True)
class Features:
    """The signals of a prompt.

    Attributes:
        values: a number per signal identifier, scaled to about 0 to 1.
        terms: per lexicon group that matched, its first matching term.
        words: the words of the text, in lower case.
    """

    values: dict[str, float]
    terms: dict[str, str]
    words: list[str]


def extract_features(prompt: ParsedPrompt) -> Features:
    """Return the signals of a prompt."""
    lowered = prompt.text.lower()
    words = words_of(lowered)
    instruction_words = words if prompt.instruction == lowered else words_of(prompt.instruction)
    hits = lexicon.load().find(prompt.instruction, instruction_words)
    values = _lexicon_signals(hits)
    values |= _size_signals(prompt, words, instruction_words)
    values |= _notation_signals(prompt.text, words) | _layout_signals(prompt)
    values |= _combined_signals(values)
    return Features(values, hits.terms, words)


def _log(count: float, maximum: float) -> float:
    """Scale a count logarithmically to 0 to 1, where 1 is `maximum` or more."""
    return math.log1p(min(count, maximum)) / math.log1p(maximum)


def _lexicon_signals(hits: Hits) -> dict[str, float]:
    values = dict.fromkeys(_lexicon_identifiers(), 0.0)
    values |= {group: _log(count, 8) for group, count in hits.counts.items()}
    values |= {f"{group}{FIRST}": 1.0 for group in hits.leading}
    values |= {f"{group}{LAST}": 1.0 for group in hits.trailing}
    return values


@cache
def _lexicon_identifiers() -> tuple[str, ...]:
    groups = lexicon.load().groups
    return tuple(f"{group}{suffix}" for group in groups for suffix in ("", FIRST, LAST))


def _size_signals(
    prompt: ParsedPrompt, words: list[str], instruction_words: list[str]
) -> dict[str, float]:
    text = prompt.text
    length = _log(_length(text, words), 1000)
    return {
        "length": length,
        "length_squared": length * length,
        "unread_length": _log(max(0, prompt.size - HEAD - TAIL), 20_000),
        "instruction_length": _log(_length(prompt.instruction, instruction_words), 300),
        "few_words": float(len(words) <= 4 and len(text) <= 40),
        "one_line": float(4 < len(words) <= 12),
        "material_share": 1.0 - min(1.0, len(prompt.instruction) / max(1, len(text))),
        "empty": float(not text),
    }


def _length(text: str, words: list[str]) -> float:
    """Return the length in words, estimated in scripts without spaces."""
    dense = 0 if text.isascii() else sum(map(len, _DENSE.findall(text)))
    return len(words) + dense / _DENSE_PER_WORD


def _notation_signals(text: str, words: list[str]) -> dict[str, float]:
    numbers = _NUMBER.findall(text)
    distinct_words = set(words)
    lengths = Counter(map(len, words))
    variables = lengths[1] - sum(map(words.count, _NO_VARIABLE)) if lengths[1] else 0
    return {
        "numbers": _log(len(numbers), 20),
        "one_number": float(len(numbers) == 1),
        "two_numbers": float(len(numbers) == 2),
        "three_numbers": float(len(numbers) == 3),
        "four_or_more_numbers": float(len(numbers) >= 4),
        "distinct_numbers": _log(len(set(numbers)), 20),
        "numeric_sentences": _log(len(_NUMERIC_SENTENCE.findall(text)), 8),
        "large_numbers": _log(sum(len(number) >= 4 for number in numbers), 6),
        "very_long_numbers": float(any(len(number) >= 10 for number in numbers)),
        "number_words": _log(len(_SMALL_NUMBER & distinct_words), 5),
        "number_share": len(numbers) / (len(numbers) + len(words) + 1),
        "operators": _log(len(_OPERATOR.findall(text)) + text.count(" - "), 20),
        "latex": _log(text.count("$") + (len(_LATEX.findall(text)) if "\\" in text else 0), 40),
        "powers": _log(len(_POWER.findall(text)), 8),
        "variables": _log(variables, 20),
        "sentences": _log(len(_STOP.findall(text)) + 1, 20),
        "questions": _log(len(_QUESTION.findall(text)), 4),
        "long_word_share": sum(count for length, count in lengths.items() if length >= _LONG_WORD)
        / (len(words) + 1),
        "proper_names": _log(len(_NAME.findall(text)), 12),
        "word_variety": len(distinct_words) / (len(words) + 3),
        "commas": _log(text.count(",") + text.count("，") + text.count("、"), 12),
    }


def _layout_signals(prompt: ParsedPrompt) -> dict[str, float]:
    text = prompt.text
    size = max(1, len(text))
    head = text[:400]
    return {
        "code": _log(prompt.code_lines, 40),
        "code_share": prompt.code_lines / max(1, prompt.lines),
        "code_block": float(prompt.fenced),
        "symbols": min(1.0, 5 * len(_SYMBOL.findall(text)) / size),
        "answer_options": float(len(_OPTION.findall(text)) >= 3),
        "list_items": _log(len(_BULLET.findall(text)), 12),
        "lines": _log(prompt.lines, 60),
        "ends_with_question": float(text.endswith(("?", "？", "؟"))),
        "ends_without_punctuation": float(bool(text) and text[-1].isalnum()),
        "starts_lowercase": float(head[:1].islower()),
        "exclamations": _log(text.count("!") + text.count("！"), 3),
        "emoji": float(_EMOJI.search(text) is not None),
        "capitals": sum(map(str.isupper, head)) / (len(head) + 1),
        "quotation": float(" … " in prompt.instruction),
        "tools": float(prompt.tools > 0),
        "has_previous_turn": float(bool(prompt.previous_prompt)),
        "previous_answer_length": _log(len(prompt.previous_answer), 800),
    }


def _combined_signals(values: dict[str, float]) -> dict[str, float]:
    """Return interactions between signals."""
    mathematics = max(values["higher_math"], values["geometry"], values["chance"])
    plain = float(
        not any(
            values[name]
            for name in ("prove", "compute", "program", "debug", "higher_math", "numbers", "latex")
        )
    )
    return {
        "math_proof": values["prove"] * max(mathematics, values["latex"]),
        "math_proof_first": values["prove_first"] * mathematics,
        "math_in_latex": mathematics * values["latex"],
        "math_optimum": mathematics * values["optimum"],
        "chance_with_numbers": values["chance"] * max(values["numbers"], values["number_words"]),
        "quantity_with_numbers": max(values["quantity"], values["compute"]) * values["numbers"],
        "multi_step_arithmetic": values["numeric_sentences"] * values["relation"],
        "one_step_arithmetic": float(0 < values["numbers"] < 0.47) * values["quantity"],
        "ratios": values["relation"] * values["four_or_more_numbers"],
        "options_without_numbers": values["answer_options"]
        * (1.0 - min(1.0, 2 * values["numbers"])),
        "build_program": values["build"] * values["program"],
        "difficult_program": values["program"] * max(values["depth"], values["systems"]),
        "estimate": values["quantity"] * max(values["careful"], values["depth"]),
        "expert_question": values["expert"] * max(values["depth"], values["analyse"]),
        "write_text": max(values["build"], values["create"]) * (1.0 - values["program"]),
        "faulty_code": values["debug"] * max(values["code"], values["program"]),
        "faulty_system": values["systems"] * values["debug"],
        "write_code": values["program"] * (1.0 - values["code_share"]),
        "short_plain": plain * float(values["length"] < 0.36),
        "plain": plain,
        "short_playful": values["playful"] * (1.0 - values["length"]),
        "plain_fact": values["fact_first"] * plain,
        "edit_text": values["transform_first"] * (0.5 + values["material_share"]),
        "plain_format": values["format"] * plain,
        "short_follow_up": values["has_previous_turn"] * (1.0 - values["length"]),
    }
