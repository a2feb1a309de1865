"""Limits on structured output that only depend on its text, checked before any compilation.

They reject what no answer needs and what makes grammar compilers overflow. A grammar within the
limits may still be too expensive, which its trial compilation finds out.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from proctor.server.engines.tool_calls import MAX_PATTERN, Constraint, Kind
from proctor.server.errors import UnsupportedRequest

MAX_CHOICES_LENGTH = 65536
"""Characters of all choices together: they are compiled to one grammar."""

MAX_GROUPS = 64
"""Nesting depth of groups and of repetition operators (`a**`), over which compilers recurse."""

MAX_REPEATED = 10_000
"""Characters that counted repetitions add when they are expanded; `(ab){3}` adds 4. Nested
repetitions multiply, so that a pattern of 40 characters can stand for ten billion."""

MAX_NESTING = 64
"""Nesting depth of objects and lists in a schema, which is vLLM's limit."""

MAX_TAG_NESTING = 80
"""Nesting depth of objects and lists in a structural tag, which contains schemas."""

MAX_PARTS = 32768
"""Number of objects and lists in a schema; a schema of 64 KB has no more."""

MAX_PATH = 128
MAX_DIGITS = 9
TOO_MANY: int = 10**MAX_DIGITS

SCHEMA_PATHS = {"response_format": "response_format.json_schema.schema"}
"""The path of the schema in a field that is not the schema itself."""

DATA = frozenset(("const", "default", "enum", "example", "examples"))
"""Keywords whose values are data, not schemas."""

TABLES = frozenset(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"))
"""Keywords whose values are maps of names to schemas."""

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
"""The tokens of a pattern or a grammar, matched in linear time; Lark also repeats by `~ 1..3`."""

TEXTS = {"pattern": PATTERN, "grammar": GRAMMAR}
"""The keys of patterns and grammars in a schema or a structural tag."""


class Node(NamedTuple):
    """An object or a list in a constraint.

    Attributes:
        path: its path from the request's field.
        value: the object or list.
        table: if its keys are names instead of keywords, the keyword that it is the value of.
    """

    path: str
    value: Any
    table: str = ""


def check_complexity(constraint: Constraint) -> None:
    """Check that a constraint is within the limits.

    Raises:
        UnsupportedRequest: if it is not; the error names the invalid part.
    """
    field, value = constraint.field, constraint.value
    match constraint.kind:
        case Kind.JSON:
            check_schema(value, SCHEMA_PATHS.get(field, field))
        case Kind.REGEX:
            _check_text(value, field, PATTERN)
        case Kind.CHOICE if sum(map(len, value)) > MAX_CHOICES_LENGTH:
            raise UnsupportedRequest(
                field,
                f"the choices of '{field}' must not have more than {MAX_CHOICES_LENGTH} "
                "characters together",
            )
        case Kind.GRAMMAR:
            _check_text(value, field, GRAMMAR)
        case Kind.STRUCTURAL_TAG:
            _check_tag(value, field)


def check_schema(schema: Any, field: str) -> None:
    """Check that a JSON schema is within the limits.

    Args:
        schema: the schema.
        field: its path in the request.

    Raises:
        UnsupportedRequest: if it is not; the error names the invalid part.
    """
    _check_parts(schema, field, MAX_NESTING)


def _check_tag(tag: str, field: str) -> None:
    try:
        plain = json.loads(tag)
    except RecursionError:
        raise UnsupportedRequest(
            field, f"'{field}' must not be nested more than {MAX_TAG_NESTING} levels deep"
        ) from None
    except ValueError as error:
        raise UnsupportedRequest(field, f"'{field}' is not JSON: {error}") from None
    if isinstance(plain, dict | list):
        try:
            _check_parts(plain, field, MAX_TAG_NESTING)
        except UnsupportedRequest as error:
            # The path leads into the tag, which is a string: `param` names the string's field.
            raise UnsupportedRequest(field, str(error)) from None


def _check_parts(root: Any, field: str, max_nesting: int) -> None:
    """Check the nesting and the size of an object or list, and all patterns in it."""
    level, count = [Node(field, root)], 1
    for _ in range(max_nesting):
        children = (child for node in level for child in _children(node))
        level = [*islice(children, MAX_PARTS - count + 1)]
        count += len(level)
        if count > MAX_PARTS:
            raise UnsupportedRequest(
                field, f"'{field}' must not have more than {MAX_PARTS} objects and lists"
            )
        if not level:
            return
    raise UnsupportedRequest(
        field, f"'{field}' must not be nested more than {max_nesting} levels deep"
    )


def _children(node: Node) -> Iterator[Node]:
    """Yield the objects and lists in a node, and check the node's patterns."""
    if isinstance(node.value, list):
        for index, each in enumerate(node.value):
            if isinstance(each, dict | list):
                yield Node(f"{node.path}[{index}]"[:MAX_PATH], each)
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


def _check_text(text: str, path: str, token_pattern: re.Pattern[str]) -> None:
    """Check a pattern or a grammar."""
    if token_pattern is PATTERN and len(text) > MAX_PATTERN:
        raise UnsupportedRequest(
            path, f"the pattern '{path}' must not have more than {MAX_PATTERN} characters"
        )
    # `group_starts` has the expanded size before each open group, `last_size` the expanded size of
    # the expression that a repetition would repeat.
    group_starts: list[int] = []
    size = last_size = stacked_repetitions = 0
    for token in token_pattern.finditer(text):
        match token.lastgroup:
            case "repeats" | "times":
                stacked_repetitions += 1
                times = _times(token.group())
                size += last_size * (times - 1)
                last_size *= times
                if size > len(text) + MAX_REPEATED:
                    raise UnsupportedRequest(
                        path,
                        f"'{path}' repeats too much: expanded, its counted repetitions must not "
                        f"add more than {MAX_REPEATED} characters",
                    )
            case "closes" if group_starts:
                last_size, stacked_repetitions = size - group_starts.pop(), 0
            case "blank":
                pass
            case "opens":
                group_starts.append(size)
                last_size = stacked_repetitions = 0
            case kind:
                last_size = token.end() - token.start() if kind == "text" else 1
                size += token.end() - token.start() if kind in ("text", "plain") else 1
                stacked_repetitions = 0
        if len(group_starts) + stacked_repetitions > MAX_GROUPS:
            raise UnsupportedRequest(
                path,
                f"'{path}' must not have groups and repetitions nested more than {MAX_GROUPS} deep",
            )


def _times(repetition: str) -> int:
    """Return how often a repetition operator repeats its operand when it is expanded."""
    numbers: list[str] = re.findall(r"\d+", repetition)
    if any(len(number) > MAX_DIGITS for number in numbers):
        return TOO_MANY
    return max((int(number) for number in numbers), default=1) or 1
