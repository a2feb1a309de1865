"""Which of vLLM's backends a grammar is for, so that it holds an answer to all that it says."""

import json
from collections.abc import Collection, Iterator
from typing import Any

from proctor.server.engines.grammars.xgrammar_schemas import (
    Inexpressible,
    Schema,
    check_heeded,
    suits,
)
from proctor.server.engines.tool_calls import Kind

AUTO = "auto"
XGRAMMAR = "xgrammar"
GUIDANCE = "guidance"


def used(named: str) -> tuple[str, ...]:
    """The backends that an operator's setting stands for."""
    return (XGRAMMAR, GUIDANCE) if named == AUTO else (named,)


def choose(kind: Kind, value: Any, named: str, usable: Collection[str]) -> tuple[str, ...]:
    """The backends for a grammar, to be tried one after the other; "auto" is vLLM's choice.

    xgrammar passes over what it does not know of a schema or a pattern, and its masks can take
    minutes where a pattern is ambiguous. llguidance refuses what it does not know, and has limits
    of its own; but it does not know all that xgrammar does, and its masks take longer.

    Args:
        kind: what `value` is.
        value: the grammar.
        named: the operator's setting.
        usable: the backends that can be used with this model.

    Raises:
        ValueError: if none would hold an answer to all that it says.
    """
    if named not in (AUTO, XGRAMMAR):
        return (named,)
    has_guidance = named == AUTO and GUIDANCE in usable
    match kind:
        case Kind.JSON:
            return _for_schema(value, named, has_guidance=has_guidance)
        case Kind.STRUCTURAL_TAG:
            for schema in _schemas(value):
                _check_heeded(schema)
            return (named,)
        case Kind.REGEX if has_guidance:
            return (GUIDANCE,)
        case _:
            return (named,)


def _for_schema(schema: Schema, named: str, *, has_guidance: bool) -> tuple[str, ...]:
    try:
        _check_heeded(schema)
    except ValueError:
        if not has_guidance:
            raise
        return (GUIDANCE,)
    return (GUIDANCE, XGRAMMAR) if has_guidance and not suits(schema) else (named,)


def _check_heeded(schema: Schema) -> None:
    """See that xgrammar holds an answer to all that a schema says.

    Raises:
        ValueError: if it does not.
    """
    try:
        check_heeded(schema)
    except Inexpressible:
        raise
    except (AttributeError, TypeError, KeyError, RecursionError):
        raise ValueError("it is no JSON schema") from None


def _schemas(tag: str) -> Iterator[Schema]:
    """The schemas within a structural tag; none where it is none, which vLLM finds out."""
    try:
        parts = [json.loads(tag)]
    except (ValueError, RecursionError):
        return
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            for name, inner in part.items():
                if name in ("json_schema", "schema"):
                    yield inner
                else:
                    parts.append(inner)
