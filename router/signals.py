"""What can be seen in a prompt, as numbers with names."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from proctor.router import lexicon
from proctor.router.conversation import HEAD, TAIL
from proctor.router.lexicon import Hits, words_of
from proctor.router.parsing import ParsedPrompt

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
"""Characters of a script without spaces that make about a word."""


@dataclass(frozen=True, slots=True)
class Features:
    """A prompt's signals.

    Attributes:
        values: one number for each of `NAMES`, about 0 to 1 where they can be.
        terms: for a group of the lexicon, the first of its terms that was found.
        words: the words of the text, in lower case.
    """

    values: dict[str, float]
    terms: dict[str, str]
    words: list[str]


def extract_features(reading: ParsedPrompt) -> Features:
    """The signals of a prompt."""
    lowered = reading.text.lower()
    words = words_of(lowered)
    asking = words if reading.ask == lowered else words_of(reading.ask)
    hits = lexicon.load().find(reading.ask, asking)
    values = _words(hits)
    values |= _size(reading, words, asking) | _notation(reading.text, words) | _shape(reading)
    values |= _together(values)
    return Features(values, hits.terms, words)


def _log(count: float, most: float) -> float:
    """A count on a scale from 0 to 1 that grows ever slower and ends at `most`."""
    return math.log1p(min(count, most)) / math.log1p(most)


def _words(hits: Hits) -> dict[str, float]:
    values = dict.fromkeys(_of_words(), 0.0)
    values |= {group: _log(count, 8) for group, count in hits.counts.items()}
    values |= {f"{group} first": 1.0 for group in hits.leading}
    values |= {f"{group} last": 1.0 for group in hits.trailing}
    return values


@cache
def _of_words() -> tuple[str, ...]:
    """Names of the signals that the lexicon gives, in order."""
    groups = lexicon.load().groups
    return tuple(f"{group}{where}" for group in groups for where in ("", " first", " last"))


def _size(reading: ParsedPrompt, words: list[str], asking: list[str]) -> dict[str, float]:
    text = reading.text
    length = _log(_length(text, words), 1000)
    return {
        "length": length,
        "length squared": length * length,
        "more than is read": _log(max(0, reading.size - HEAD - TAIL), 20_000),
        "length of the asking": _log(_length(reading.ask, asking), 300),
        "a few words": float(len(words) <= 4 and len(text) <= 40),
        "one line of words": float(4 < len(words) <= 12),
        "material": 1.0 - min(1.0, len(reading.ask) / max(1, len(text))),
        "empty": float(not text),
    }


def _length(text: str, words: list[str]) -> float:
    """In words, or in what would be words if the script had spaces."""
    dense = 0 if text.isascii() else sum(map(len, _DENSE.findall(text)))
    return len(words) + dense / _DENSE_PER_WORD


def _notation(text: str, words: list[str]) -> dict[str, float]:
    numbers = _NUMBER.findall(text)
    different = set(words)
    lengths = Counter(map(len, words))
    variables = lengths[1] - sum(map(words.count, _NO_VARIABLE)) if lengths[1] else 0
    return {
        "numbers": _log(len(numbers), 20),
        "a number": float(len(numbers) == 1),
        "two numbers": float(len(numbers) == 2),
        "three numbers": float(len(numbers) == 3),
        "four numbers or more": float(len(numbers) >= 4),
        "different numbers": _log(len(set(numbers)), 20),
        "sentences with numbers": _log(len(_NUMERIC_SENTENCE.findall(text)), 8),
        "large numbers": _log(sum(len(number) >= 4 for number in numbers), 6),
        "very long numbers": float(any(len(number) >= 10 for number in numbers)),
        "number words": _log(len(_SMALL_NUMBER & different), 5),
        "share of numbers": len(numbers) / (len(numbers) + len(words) + 1),
        "operators": _log(len(_OPERATOR.findall(text)) + text.count(" - "), 20),
        "LaTeX": _log(text.count("$") + (len(_LATEX.findall(text)) if "\\" in text else 0), 40),
        "powers": _log(len(_POWER.findall(text)), 8),
        "variables": _log(variables, 20),
        "sentences": _log(len(_STOP.findall(text)) + 1, 20),
        "questions": _log(len(_QUESTION.findall(text)), 4),
        "long words": sum(count for length, count in lengths.items() if length >= _LONG_WORD)
        / (len(words) + 1),
        "names": _log(len(_NAME.findall(text)), 12),
        "variety of words": len(different) / (len(words) + 3),
        "commas": _log(text.count(",") + text.count("，") + text.count("、"), 12),
    }


def _shape(reading: ParsedPrompt) -> dict[str, float]:
    text = reading.text
    size = max(1, len(text))
    letters = text[:400]
    return {
        "code": _log(reading.code_lines, 40),
        "share of code": reading.code_lines / max(1, reading.lines),
        "code block": float(reading.fenced),
        "symbols": min(1.0, 5 * len(_SYMBOL.findall(text)) / size),
        "options to choose from": float(len(_OPTION.findall(text)) >= 3),
        "list items": _log(len(_BULLET.findall(text)), 12),
        "lines": _log(reading.lines, 60),
        "ends with a question": float(text.endswith(("?", "？", "؟"))),
        "ends without a stop": float(bool(text) and text[-1].isalnum()),
        "begins in lower case": float(letters[:1].islower()),
        "exclamations": _log(text.count("!") + text.count("！"), 3),
        "emoji": float(_EMOJI.search(text) is not None),
        "capitals": sum(map(str.isupper, letters)) / (len(letters) + 1),
        "quotation": float(" … " in reading.ask),
        "tools": float(reading.tools > 0),
        "a turn before": float(bool(reading.earlier)),
        "length of the answer before": _log(len(reading.answered), 800),
    }


def _together(values: dict[str, float]) -> dict[str, float]:
    """Signals that say more together than each alone."""
    mathematics = max(values["higher_math"], values["geometry"], values["chance"])
    plain = float(
        not any(
            values[name]
            for name in ("prove", "compute", "program", "debug", "higher_math", "numbers", "LaTeX")
        )
    )
    return {
        "proof of mathematics": values["prove"] * max(mathematics, values["LaTeX"]),
        "a proof asked first": values["prove first"] * mathematics,
        "mathematics in LaTeX": mathematics * values["LaTeX"],
        "extremes in mathematics": mathematics * values["optimum"],
        "chance with numbers": values["chance"] * max(values["numbers"], values["number words"]),
        "a quantity asked of numbers": max(values["quantity"], values["compute"])
        * values["numbers"],
        "many steps with numbers": values["sentences with numbers"] * values["relation"],
        "one step with numbers": float(0 < values["numbers"] < 0.47) * values["quantity"],
        "shares and multiples": values["relation"] * values["four numbers or more"],
        "options without numbers": values["options to choose from"]
        * (1.0 - min(1.0, 2 * values["numbers"])),
        "a program to be built": values["build"] * values["program"],
        "a difficult program": values["program"] * max(values["depth"], values["systems"]),
        "an estimate": values["quantity"] * max(values["careful"], values["depth"]),
        "a question for an expert": values["expert"] * max(values["depth"], values["analyse"]),
        "a text to be made": max(values["build"], values["create"]) * (1.0 - values["program"]),
        "code and a fault": values["debug"] * max(values["code"], values["program"]),
        "systems at fault": values["systems"] * values["debug"],
        "code to be written": values["program"] * (1.0 - values["share of code"]),
        "short and plain": plain * float(values["length"] < 0.36),
        "plain": plain,
        "playful and short": values["playful"] * (1.0 - values["length"]),
        "a fact and nothing more": values["fact first"] * plain,
        "work on a text": values["transform first"] * (0.5 + values["material"]),
        "form": values["format"] * plain,
        "short after a turn": values["a turn before"] * (1.0 - values["length"]),
    }
