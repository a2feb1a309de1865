"""From a body's bytes to a request, or to a 400 that names the field."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jiter
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from proctor.server.errors import BadRequest
from proctor.server.schemas.base import RequestModel
from proctor.server.schemas.generation import ChatRequest

P = TypeVar("P", bound=RequestModel)

MAX_PATH = 128
MAX_LOOKED_AT = 1024
MAX_BESIDE = 8
"""Entries that are named beside the first that is wrong."""


def parse_chat(body: bytes) -> ChatRequest:
    """The chat request in a body; see `parse`."""
    return parse(body, ChatRequest)


def parse(body: bytes, kind: type[P]) -> P:
    """The request in a body.

    Raises:
        BadRequest: if it is not one; the first field at fault is named.
    """
    try:
        try:
            request = kind.model_validate_json(body)
        except ValidationError as error:
            whole = _with_integers(error, body)
            if whole is None:
                raise
            request = kind.model_validate_json(whole)
    except ValidationError as error:
        raise _bad_request(error, body) from None
    _check_that_none_is_twice(body)
    return request


def _check_that_none_is_twice(body: bytes) -> None:
    """Refuse a field that is given twice, of which pydantic would take the last."""
    try:
        jiter.from_json(body, catch_duplicate_keys=True)
    except ValueError as error:
        raise BadRequest(f"the body is ambiguous: {str(error)[:MAX_PATH]}") from None


def _with_integers(error: ValidationError, body: bytes) -> bytes | None:
    """The body with plain integers where they are written as `8.0`, which to JSON is the same.

    Whatever is an integer is strictly one here, so that neither `true` nor "8" is. None if none
    of that is wrong.
    """
    found = error.errors(include_url=False, include_input=False, include_context=False)
    wrong = [each["loc"] for each in found if each["type"] == "int_type"]
    if not wrong:
        return None
    value = from_json(body)
    for way in (_known(location, value, keeps_last=False) for location in wrong):
        *before, last = way[:-1] if isinstance(way[-1], int) else way  # a whole list at once
        within = value
        for part in before:
            within = within[part]
        within[last] = _integers(within[last])
    return to_json(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _integers(value: Any) -> Any:
    """A number as an integer, or a list with its numbers so, where they are whole."""
    if isinstance(value, list):
        return [_integers(each) for each in value]
    return int(value) if _is_whole(value) else value


def _bad_request(error: ValidationError, body: bytes) -> BadRequest:
    found = error.errors(include_url=False, include_input=False)
    context: dict[str, Any] = found[0].get("ctx", {})
    if found[0]["type"] == "json_invalid":
        return BadRequest(f"the body is not valid JSON: {context['error']}")
    # Where a field takes several shapes, the one that the value came furthest with is meant.
    field = found[0]["loc"][:1]
    first = max((each for each in found if each["loc"][:1] == field), key=lambda e: len(e["loc"]))
    context = first.get("ctx", {})
    value = from_json(body)
    location = _known(first["loc"], value, keeps_last=first["type"] == "missing")
    if first["type"] == "field":
        param = _path((*location, context["field"]))
        return BadRequest(f"'{param}' {context['reason']}", param=param)
    param = _path(location)
    if first["type"] == "missing":
        return BadRequest(f"'{param}' is required", param=param)
    what = f"'{param}'" if param else "the body"
    message = first["msg"][0].lower() + first["msg"][1:]
    wrong = [_known(each["loc"], value, keeps_last=False) for each in found[:MAX_LOOKED_AT]]
    others = _beside(location, wrong)
    return BadRequest(f"{what} is wrong: {message}{others}", param=param or None)


def _beside(location: tuple[int | str, ...], wrong: Sequence[tuple[int | str, ...]]) -> str:
    """What to say of other entries of the same list or table that are wrong as well."""
    within = location[:-1]
    others = [each for each in wrong if within and each[:-1] == within and each != location]
    told = [f"'{_path(each)}'" for each in dict.fromkeys(others)]
    if not told:
        return ""
    more = f" and {len(told) - MAX_BESIDE} more" if len(told) > MAX_BESIDE else ""
    return f"; so are {', '.join(told[:MAX_BESIDE])}{more}"


def _path(location: tuple[int | str, ...]) -> str:
    """`('messages', 0, 'content')` as `messages[0].content`, of bounded length."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")[:MAX_PATH]


def _known(
    location: tuple[int | str, ...], value: Any, *, keeps_last: bool
) -> tuple[int | str, ...]:
    """A location without pydantic's names for the shapes that a field may have."""
    kept: list[int | str] = []
    for place, part in enumerate(location, 1):
        if _holds(value, part):
            value = value[part]
        elif not (keeps_last and place == len(location)):
            continue
        kept.append(part)
    return tuple(kept)


def _holds(value: Any, part: int | str) -> bool:
    if isinstance(part, int):
        return isinstance(value, list) and part < len(value)
    return isinstance(value, dict) and part in value
