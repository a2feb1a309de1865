"""Separates a prompt's instruction from the material that it refers to.

A keyword counts only in the instruction. In code, in quotations, or in a text to be
translated it says nothing about the task.
"""

import re
import unicodedata
from dataclasses import dataclass

from proctor.router.conversation import Conversation, bounded
from proctor.router.features import lexicon
from proctor.router.features.directives import without_directives

_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_QUOTES = re.compile(
    r"\"([^\"\n]{12,})\"|“([^”\n]{12,})”|„([^“”\n]{12,})[“”]|«([^»\n]{12,})»"
    r"|「([^」\n]{6,})」|『([^』\n]{6,})』|(?<!\w)'([^'\n]{20,})'(?!\w)"
)
_QUOTATION_MARKS = "\"“„«「『'"
_CODE_LINE = re.compile(
    r"\s*(?:def |class \w+.*[:{]|import \w|from \w+ import|return\b.*[;\w)\]]$|#include|#!|@\w+"
    r"|(?:public|private|protected|static|const|let|var|func|fn|void|int|char|auto|template)\b.*[;{(=]"
    r"|(?:for|while|if|elif|else|try|except|switch|catch|with)\b.*[:{]\s*$|SELECT\b|INSERT\b|UPDATE\b"
    r"|CREATE\b|FROM\b|WHERE\b|</?\w+[^>]*>|[}\])]+[;,]?\s*$|>>> |\$ \w|assert |print\("
    r"|[\w.\[\]]+ ?[-+*/|&]?= ?\S)"
)
_CODE_LINE_ENDS = (";", "{", "}", "=>", "()")
_INDENTED = re.compile(r"(?: {4,}|\t)\S")
_INSTRUCTION_END = re.compile(r"[:：\n]")
_MAX_INSTRUCTION = 200
"""Characters within which the end of an instruction before a text is searched."""
_INSTRUCTION_HEAD = 120
"""Characters that are searched for a verb such as "translate"."""

_CONTEXT_HEAD = 600
_CONTEXT_TAIL = 200


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """The parts of a prompt, each bounded in length.

    Attributes:
        text: the prompt without directives about tiers.
        size: the length of the whole prompt in characters.
        instruction: the part of `text` that states the task, in lower case; the rest is material.
        code_lines: the number of lines of code.
        lines: the number of nonempty lines.
        fenced: whether there is a fenced code block.
        has_directives: whether directives about tiers were removed.
        previous_prompt: the previous user turn; "" if there is none.
        previous_answer: the previous assistant turn; "" if there is none.
        tools: the number of tools offered.
    """

    text: str
    size: int
    instruction: str
    code_lines: int
    lines: int
    fenced: bool
    has_directives: bool
    previous_prompt: str = ""
    previous_answer: str = ""
    tools: int = 0


def parse_prompt(conversation: Conversation) -> ParsedPrompt:
    """Parse the last user turn, with the turns before it as context."""
    previous = {turn.role: turn.text for turn in conversation.context}
    return parse_text(
        conversation.prompt,
        previous_prompt=bounded(previous.get("user", ""), _CONTEXT_HEAD, _CONTEXT_TAIL),
        previous_answer=bounded(previous.get("assistant", ""), _CONTEXT_HEAD, _CONTEXT_TAIL),
        tools=conversation.tools,
    )


def parse_text(
    prompt: str, *, previous_prompt: str = "", previous_answer: str = "", tools: int = 0
) -> ParsedPrompt:
    """Parse a prompt, by default without context."""
    # NFC makes composed and decomposed accents equal. It can lengthen a text, hence both bounds.
    composed = bounded(unicodedata.normalize("NFC", bounded(prompt)))
    text, has_directives = without_directives(composed.strip())
    fences = _FENCE.findall(text)
    prose, code_lines = _without_code(_FENCE.sub("\n", text))
    return ParsedPrompt(
        text=text,
        size=len(prompt),
        instruction=_instruction(prose).lower(),
        code_lines=code_lines + sum(fence.count("\n") + 1 for fence in fences),
        lines=sum(1 for line in text.split("\n") if line.strip()),
        fenced=bool(fences),
        has_directives=has_directives,
        previous_prompt=previous_prompt,
        previous_answer=previous_answer,
        tools=tools,
    )


def _without_code(text: str) -> tuple[str, int]:
    """Return the lines that are not code, and the number of those that are."""
    if "\n" not in text and ";" not in text and "(" not in text:
        return text, 0
    prose: list[str] = []
    code_lines = 0
    for line in text.split("\n"):
        if (
            line.rstrip().endswith(_CODE_LINE_ENDS)
            or _CODE_LINE.match(line)
            or (code_lines and _INDENTED.match(line))
        ):
            code_lines += 1
        else:
            prose.append(line)
    return "\n".join(prose), code_lines


def _instruction(prose: str) -> str:
    """Return the prose without quotations and without a text to be transformed."""
    quoted = any(mark in prose for mark in _QUOTATION_MARKS)
    unquoted = (_QUOTES.sub(" … ", prose) if quoted else prose).strip()
    if _starts_with_transform(unquoted):
        end = _INSTRUCTION_END.search(unquoted, 0, _MAX_INSTRUCTION)
        return unquoted[: end.end()] if end else unquoted
    # "<text> Translate the above": the instruction may be the last paragraph.
    _, newline, paragraph = unquoted.rpartition("\n")
    if newline and _starts_with_transform(paragraph):
        return paragraph
    return unquoted


def _starts_with_transform(text: str) -> bool:
    return bool(lexicon.load_group("transform").find(text[:_INSTRUCTION_HEAD].lower()).leading)
