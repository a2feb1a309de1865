"""Takes a prompt apart: what is asked, and what the asking is about.

A keyword counts where somebody asks for something. In a text that is handed over
to be translated, inside quotation marks or in code it says nothing about the task.
"""

import re
import unicodedata
from dataclasses import dataclass

from proctor.router import lexicon
from proctor.router.conversation import Conversation, bounded
from proctor.router.directives import without_directives

_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_QUOTES = re.compile(
    r"\"([^\"\n]{12,})\"|“([^”\n]{12,})”|„([^“”\n]{12,})[“”]|«([^»\n]{12,})»"
    r"|「([^」\n]{6,})」|『([^』\n]{6,})』|(?<!\w)'([^'\n]{20,})'(?!\w)"
)
_MARKS = "\"“„«「『'"
_CODE_LINE = re.compile(
    r"\s*(?:def |class \w+.*[:{]|import \w|from \w+ import|return\b.*[;\w)\]]$|#include|#!|@\w+"
    r"|(?:public|private|protected|static|const|let|var|func|fn|void|int|char|auto|template)\b.*[;{(=]"
    r"|(?:for|while|if|elif|else|try|except|switch|catch|with)\b.*[:{]\s*$|SELECT\b|INSERT\b|UPDATE\b"
    r"|CREATE\b|FROM\b|WHERE\b|</?\w+[^>]*>|[}\])]+[;,]?\s*$|>>> |\$ \w|assert |print\("
    r"|[\w.\[\]]+ ?[-+*/|&]?= ?\S)"
)
_CODE_ENDS = (";", "{", "}", "=>", "()")
_INDENTED = re.compile(r"(?: {4,}|\t)\S")
_EDGE = re.compile(r"[:：\n]")
_EDGE_WITHIN = 200
_ASK_HEAD = 120
_CONTEXT_HEAD = 600
_CONTEXT_TAIL = 200


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """A prompt's parts, each bounded in length.

    Attributes:
        text: the prompt, without words about tiers.
        size: characters of the whole prompt.
        ask: where somebody asks for something; the rest of `text` is material.
        code_lines: lines that are code.
        lines: lines that are not empty.
        fenced: whether code is marked as such.
        directed: whether words about tiers were left out.
        earlier: the user's turn before, "" if there is none.
        answered: the assistant's turn before, "" if there is none.
        tools: how many tools are offered.
    """

    text: str
    size: int
    ask: str
    code_lines: int
    lines: int
    fenced: bool
    directed: bool
    earlier: str = ""
    answered: str = ""
    tools: int = 0


def parse_prompt(conversation: Conversation) -> ParsedPrompt:
    """The prompt's parts, and the turns before it as context."""
    before = {turn.role: turn.text for turn in conversation.context}
    return read_alone(
        conversation.prompt,
        earlier=bounded(before.get("user", ""), _CONTEXT_HEAD, _CONTEXT_TAIL),
        answered=bounded(before.get("assistant", ""), _CONTEXT_HEAD, _CONTEXT_TAIL),
        tools=conversation.tools,
    )


def read_alone(
    prompt: str, *, earlier: str = "", answered: str = "", tools: int = 0
) -> ParsedPrompt:
    """A prompt's parts, by default without what surrounds it."""
    # Composed and decomposed accents are the same letters; a few characters grow by it.
    composed = bounded(unicodedata.normalize("NFC", bounded(prompt)))
    text, directed = without_directives(composed.strip())
    fences = _FENCE.findall(text)
    prose, code_lines = _without_code(_FENCE.sub("\n", text))
    return ParsedPrompt(
        text=text,
        size=len(prompt),
        ask=_asked(prose).lower(),
        code_lines=code_lines + sum(fence.count("\n") + 1 for fence in fences),
        lines=sum(1 for line in text.split("\n") if line.strip()),
        fenced=bool(fences),
        directed=directed,
        earlier=earlier,
        answered=answered,
        tools=tools,
    )


def _without_code(text: str) -> tuple[str, int]:
    """The lines that are not code, and how many were."""
    if "\n" not in text and ";" not in text and "(" not in text:
        return text, 0
    prose: list[str] = []
    code_lines = 0
    for line in text.split("\n"):
        if (
            line.rstrip().endswith(_CODE_ENDS)
            or _CODE_LINE.match(line)
            or (code_lines and _INDENTED.match(line))
        ):
            code_lines += 1
        else:
            prose.append(line)
    return "\n".join(prose), code_lines


def _asked(prose: str) -> str:
    """The prose without what is quoted, or handed over to be worked on."""
    quoted = any(mark in prose for mark in _MARKS)
    asked = (_QUOTES.sub(" … ", prose) if quoted else prose).strip()
    if _transforms(asked):
        edge = _EDGE.search(asked, 0, _EDGE_WITHIN)
        return asked[: edge.end()] if edge else asked
    _, broken, paragraph = asked.rpartition("\n")
    if broken and _transforms(paragraph):
        return paragraph
    return asked


def _transforms(text: str) -> bool:
    """Whether a text begins by asking for work on another text."""
    return bool(lexicon.only("transform").find(text[:_ASK_HEAD].lower()).leading)
