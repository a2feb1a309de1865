"""Finds damage in texts: of their encoding, of their format, and ends that are cut off."""

import re
import unicodedata
from typing import Any

from proctor.budget.vocabulary import CLOSERS, TERMINATORS
from proctor.curation.answers import states
from proctor.curation.errors import CurationError
from proctor.curation.readers.markers import PAIRS

LOST = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
"""Control characters other than white space, and the replacement character."""

CONTROL_TOKEN = re.compile(r"<\|[A-Za-z_]{2,40}\|>|</?s>|\[/?INST\]")
PAGE_MARK = re.compile(r"(?im)^\s*(?:-{1,3}\s*)?page\s+\d+(?:\s+of\s+\d+)?(?:\s*-{1,3})?\s*$")
FENCE = re.compile(r"(?m)^[ \t]*```")
# Not after a letter, as in LaTeX's \text{{A}}.
PLACEHOLDER = re.compile(
    r"(?<!\w)\{\{\s*\w+\s*\}\}|<(?:insert|your)[ _][^<>\n]{1,40}>", re.IGNORECASE
)

IMAGE = re.compile(
    r"!\[[^\]\n]*\]\([^)\n]*\)|<img\b|<image>|\\includegraphics|\[image\b", re.IGNORECASE
)
ASYMPTOTE = re.compile(r"\[asy\]|\\begin\{asy\}")
FIGURE = re.compile(
    r"\b(?:the|this|following|accompanying|given|see|in|from)\s+"
    r"(?:\w+\s+)?(?:figure|diagram|image|picture|photo(?:graph)?|illustration|graph|chart)\s+"
    r"(?:below|above|shown|provided|on the (?:left|right|next page))\b"
    r"|\b(?:shown|pictured|depicted|illustrated) (?:in|on) the "
    r"(?:figure|diagram|image|picture|photo(?:graph)?|illustration|graph|chart)\b"
    r"|\bas (?:shown|pictured|illustrated) (?:below|above)\b"
    r"|\b(?:see|refer to|look at|consult) (?:the|this) "
    r"(?:figure|diagram|image|picture|photo(?:graph)?|illustration|graph|chart)\b"
    r"|\b(?:in|see|from) (?:figure|fig\.) ?\d+",
    re.IGNORECASE,
)

UNFINISHED_WORD = re.compile(
    r"\w\W+(?:and|or|the|a|an|of|to|so|because|but|if|then|with|is|are|that|which|we|let|by|from|for)$",
    re.IGNORECASE,
)
SENTENCE_ENDS = (*TERMINATORS, ":", "$", "|", "\\]")
FINISHED_SHARE = 0.8
UNFINISHED_MARK = re.compile(r"(?:[,;:(\[{+*/=<>&\\-]|\.\.\.|…)$")


def encoding_damage(text: str) -> str | None:
    """Return the damaged part of a text, such as `â€™` or a replacement character, or None."""
    if lost := LOST.search(text):
        name = unicodedata.name(lost[0], f"U+{ord(lost[0]):04X}")
        return f"{name} in {_around(text, lost.start())}"
    if text.isascii() or not load_badness().is_bad(text):
        return None
    damaged = load_badness().BADNESS_RE.search(text)
    return _around(text, damaged.start()) if damaged else "mojibake"


def format_fault(text: str) -> str | None:
    """Return what is wrong with the format of a text, or None."""
    for pair in PAIRS:
        if marker := next((marker for marker in pair if marker in text), None):
            return f"the marker {marker} is in the text"
    for pattern, name in (
        (CONTROL_TOKEN, "control token"),
        (PAGE_MARK, "page mark"),
        (PLACEHOLDER, "placeholder"),
    ):
        if found := pattern.search(text):
            return f"{name} {found[0].strip()}"
    if len(FENCE.findall(text)) % 2:
        return "a code block that is not closed"
    return None


def figure(text: str, *, asymptote: bool = False) -> str | None:
    """Return the words that refer to an image or figure, or None.

    Args:
        text: the text.
        asymptote: whether figures drawn in Asymptote are part of the text.
    """
    if found := IMAGE.search(text):
        return found[0]
    if drawn := ASYMPTOTE.search(text):
        return None if asymptote else drawn[0]
    found = FIGURE.search(text)
    return found[0] if found else None


def cut_off(text: str, answer: str = "") -> str | None:
    """Return the end of a text that ends in the middle of a sentence or formula, or None.

    A last line that ends in a word without a full stop counts only if the lines before it have
    one, as some write none, and if it does not hold the answer.

    Args:
        text: the text.
        answer: the final answer that it should come to, if there is one.
    """
    end = text.rstrip()
    opened = (
        len(FENCE.findall(end)) % 2 or end.count("$$") % 2 or end.count(r"\[") > end.count(r"\]")
    )
    unfinished = UNFINISHED_MARK.search(end) or UNFINISHED_WORD.search(end)
    if opened or unfinished or _breaks_style(end, answer):
        return f"…{end[-60:]}"
    return None


def _breaks_style(text: str, answer: str) -> bool:
    """Return whether the lines but the last end a sentence, and that one is cut off."""
    *lines, last = [line for line in text.splitlines() if line.strip()] or [""]
    finished = sum(map(_is_finished, lines))
    if not lines or finished < FINISHED_SHARE * len(lines) or not last[-1:].isalpha():
        return False
    return not (answer and states(last, answer))


def _is_finished(line: str) -> bool:
    return line.rstrip().rstrip(CLOSERS).endswith(SENTENCE_ENDS)


def _around(text: str, position: int) -> str:
    return repr(text[max(0, position - 20) : position + 20])


def load_badness() -> Any:
    """Return the module of ftfy that recognizes damaged text.

    Raises:
        CurationError: if it is not installed.
    """
    try:
        import ftfy.badness
    except ImportError as error:
        raise CurationError(f"the stage 'quality' requires the extra 'curate': {error}") from error
    return ftfy.badness
