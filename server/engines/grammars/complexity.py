"""Bounds on a constraint by its text alone, before any process tries it.

They keep out what no answer needs and compilers choke on. What is within them may still cost
too much: that is for a trial to find out.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from proctor.server.engines.tool_calls import Constraint, Kind
from proctor.server.errors import UnsupportedRequest

MAX_PATTERN = 4096
"""Characters of a regular expression. The longest in wide use, of URLs and dates, have 500."""

MAX_CHOICES_LENGTH = 65536
"""Characters of all the texts that an answer is one of: a grammar is made of them."""

MAX_GROUPS = 64
"""Groups within each other, and repetitions of one thing (`a**`): compilers recurse over them."""

MAX_REPEATED = 10_000
"""Characters that counted repetitions add when they are written out; `(ab){3}` adds 4. Those
within others multiply, so that a pattern of 40 characters can stand for ten billion."""

MAX_NESTING = 64
"""Objects and lists of a schema within each other. vLLM takes no more."""

MAX_TAG_NESTING = 80
"""The same of a structural tag, which has schemas within it."""

MAX_PARTS = 32768
"""Objects and lists of a schema in all; one of 64 KB has no more."""

MAX_PATH = 128
MAX_DIGITS = 9
TOO_OFTEN: int = 10**MAX_DIGITS

WHERE = {"response_format": "response_format.json_schema.schema"}
"""Where a field has its schema, if not in itself."""

DATA = frozenset(("const", "default", "enum", "example", "examples"))
"""Keywords of a schema beneath which is no schema."""

TABLES = frozenset(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"))
"""Keywords of a schema whose values are schemas by name."""

COMMON = r"""
    (?P<one> \\. | \[ (?: \\. | [^\]\\] )*+ \]? )
    | (?P<opens> \( )
    | (?P<closes> \) )
    | (?P<repeats> [*+?] | \{ [\d,\s]*+ \} )
    | (?P<plain> [^\\\[(){*+?~"\#]++ | . )
"""
OF_GRAMMARS = r"""
    (?P<text> "(?: \\. | [^"\\\n] )*+ "? )
    | (?P<blank> \s++ | \# [^\n]*+ )
    | (?P<times> ~ \s*+ \d++ (?: \s*+ \.\. \s*+ \d++ )? )
"""
PATTERN = re.compile(COMMON, re.VERBOSE | re.DOTALL)
GRAMMAR = re.compile(f"{OF_GRAMMARS} | {COMMON}", re.VERBOSE | re.DOTALL)
"""The parts of a text that matter, each found in time linear in its length; Lark repeats by
`~ 1..3` too."""

TEXTS = {"pattern": PATTERN, "grammar": GRAMMAR}
"""What is a pattern or a grammar within a schema or a structural tag, by its key."""


class Node(NamedTuple):
    """An object or a list within a constraint.

    Attributes:
        path: where it stands.
        value: what it is.
        table: the keyword whose value it is, where its keys are names rather than keywords.
    """

    path: str
    value: Any
    table: str = ""


def check_complexity(constraint: Constraint) -> None:
    """See that a constraint is within the bounds.

    Raises:
        UnsupportedRequest: if it is not; the part at fault is named.
    """
    field, value = constraint.field, constraint.value
    match constraint.kind:
        case Kind.JSON:
            check_schema(value, WHERE.get(field, field))
        case Kind.REGEX:
            _check_text(value, field, PATTERN)
        case Kind.CHOICE if sum(map(len, value)) > MAX_CHOICES_LENGTH:
            raise UnsupportedRequest(
                field, f"'{field}' has texts of more than {MAX_CHOICES_LENGTH} characters together"
            )
        case Kind.GRAMMAR:
            _check_text(value, field, GRAMMAR)
        case Kind.STRUCTURAL_TAG:
            _check_tag(value, field)


def check_schema(schema: Any, field: str) -> None:
    """The same for a JSON schema.

    Args:
        schema: the schema.
        field: where the request has it.

    Raises:
        UnsupportedRequest: if it is not within the bounds; the part at fault is named.
    """
    _check_parts(schema, field, MAX_NESTING)


def _check_tag(tag: str, field: str) -> None:
    try:
        plain = json.loads(tag)
    except RecursionError:
        raise UnsupportedRequest(
            field, f"'{field}' is nested more than {MAX_TAG_NESTING} levels deep"
        ) from None
    except ValueError as error:
        raise UnsupportedRequest(field, f"'{field}' is not JSON: {error}") from None
    if isinstance(plain, dict | list):
        try:
            _check_parts(plain, field, MAX_TAG_NESTING)
        except UnsupportedRequest as error:  # within a text, which is the request's field
            raise UnsupportedRequest(field, str(error)) from None


def _check_parts(whole: Any, field: str, most: int) -> None:
    """See that the patterns of what is nested are within the bounds, and so is its size."""
    level, seen = [Node(field, whole)], 1
    for _ in range(most):
        inner = (part for node in level for part in _inner(node))
        level = [*islice(inner, MAX_PARTS - seen + 1)]
        seen += len(level)
        if seen > MAX_PARTS:
            raise UnsupportedRequest(
                field, f"'{field}' has more than {MAX_PARTS} objects and lists"
            )
        if not level:
            return
    raise UnsupportedRequest(field, f"'{field}' is nested more than {most} levels deep")


def _inner(node: Node) -> Iterator[Node]:
    """The objects and lists that one holds; its patterns are looked at."""
    if isinstance(node.value, list):
        for at, each in enumerate(node.value):
            if isinstance(each, dict | list):
                yield Node(f"{node.path}[{at}]"[:MAX_PATH], each)
        return
    for name, value in node.value.items():
        path = f"{node.path}.{name}"[:MAX_PATH]
        if node.table == "patternProperties":
            _check_text(name, path, PATTERN)
        if isinstance(value, dict | list):
            if node.table:
                yield Node(path, value)
            elif name not in DATA:
                yield Node(path, value, name if name in TABLES else "")
        elif isinstance(value, str) and name in TEXTS:
            _check_text(value, path, TEXTS[name])


def _check_text(text: str, path: str, parts: re.Pattern[str]) -> None:
    """See that a pattern or a grammar is within the bounds."""
    if parts is PATTERN and len(text) > MAX_PATTERN:
        raise UnsupportedRequest(
            path, f"'{path}' is a pattern of more than {MAX_PATTERN} characters"
        )
    groups: list[int] = []
    size = last = stacked = 0
    for part in parts.finditer(text):
        match part.lastgroup:
            case "repeats" | "times":
                stacked += 1
                times = _times(part.group())
                size += last * (times - 1)
                last *= times
                if size > len(text) + MAX_REPEATED:
                    raise UnsupportedRequest(
                        path,
                        f"'{path}' repeats too much: written out, its counted repetitions may "
                        f"add {MAX_REPEATED} characters",
                    )
            case "closes" if groups:
                last, stacked = size - groups.pop(), 0
            case "blank":
                pass
            case "opens":
                groups.append(size)
                last = stacked = 0
            case kind:
                last = part.end() - part.start() if kind == "text" else 1
                size += part.end() - part.start() if kind in ("text", "plain") else 1
                stacked = 0
        if len(groups) + stacked > MAX_GROUPS:
            raise UnsupportedRequest(
                path, f"'{path}' has groups and repetitions nested more than {MAX_GROUPS} deep"
            )


def _times(repetition: str) -> int:
    """How often a repetition has its part written out."""
    numbers: list[str] = re.findall(r"\d+", repetition)
    if any(len(number) > MAX_DIGITS for number in numbers):
        return TOO_OFTEN
    return max((int(number) for number in numbers), default=1) or 1
