"""Chooses a structured output backend that enforces all of a grammar."""

import json
from collections.abc import Collection, Iterator
from typing import Any

from proctor.server.engines.grammars.xgrammar_schemas import (
    Schema,
    UnsupportedSchema,
    check_enforced,
    is_efficient,
)
from proctor.server.engines.tool_calls import Kind

AUTO = "auto"
XGRAMMAR = "xgrammar"
GUIDANCE = "guidance"


def candidate_backends(setting: str) -> tuple[str, ...]:
    """Return the backends that an operator's setting allows."""
    return (XGRAMMAR, GUIDANCE) if setting == AUTO else (setting,)


def choose(kind: Kind, value: Any, setting: str, usable: Collection[str]) -> tuple[str, ...]:
    """Return the backends to try for a grammar, in order; "auto" leaves the choice to vLLM.

    xgrammar ignores parts of a schema or a pattern that it does not support, and computing its
    logits masks can take minutes if a pattern is ambiguous. llguidance rejects what it does not
    support, and has its own limits, but it supports less than xgrammar and its masks take longer.

    Args:
        kind: the kind of `value`.
        value: the grammar.
        setting: the operator's setting.
        usable: the backends that can be used with this model.

    Raises:
        ValueError: if no backend enforces all of the grammar.
    """
    if setting not in (AUTO, XGRAMMAR):
        return (setting,)
    has_guidance = setting == AUTO and GUIDANCE in usable
    match kind:
        case Kind.JSON:
            return _for_schema(value, setting, has_guidance=has_guidance)
        case Kind.STRUCTURAL_TAG:
            for schema in _schemas(value):
                _check_enforced(schema)
            return (setting,)
        case Kind.REGEX if has_guidance:
            return (GUIDANCE,)
        case _:
            return (setting,)


def _for_schema(schema: Schema, setting: str, *, has_guidance: bool) -> tuple[str, ...]:
    try:
        _check_enforced(schema)
    except ValueError:
        if not has_guidance:
            raise
        return (GUIDANCE,)
    return (GUIDANCE, XGRAMMAR) if has_guidance and not is_efficient(schema) else (setting,)


def _check_enforced(schema: Schema) -> None:
    """Check that xgrammar enforces all of a schema.

    Raises:
        ValueError: if it does not.
    """
    try:
        check_enforced(schema)
    except UnsupportedSchema:
        raise
    except (AttributeError, TypeError, KeyError, RecursionError):
        raise ValueError("it is not a JSON schema") from None


def _schemas(tag: str) -> Iterator[Schema]:
    """Yield the schemas in a structural tag; none if it is invalid, which vLLM reports."""
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
