"""Parsing of request bodies, with errors that name the invalid field."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jiter
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from proctor.server.errors import BadRequest
from proctor.server.schemas.base import RequestModel
from proctor.server.schemas.generation import ChatRequest

Model = TypeVar("Model", bound=RequestModel)
Location = tuple[int | str, ...]

MAX_PATH = 128
MAX_EXAMINED = 1024
MAX_OTHERS = 8
"""The number of further invalid entries that a message names."""


def parse_chat(body: bytes) -> ChatRequest:
    """Parse the body of a chat request; see `parse`."""
    return parse(body, ChatRequest)


def parse(body: bytes, model: type[Model]) -> Model:
    """Parse the body of a request.

    Raises:
        BadRequest: if the body is not valid JSON, or invalid for the model; `param` is
            the first invalid field.
    """
    try:
        try:
            request = model.model_validate_json(body)
        except ValidationError as error:
            converted = _with_integers(error, body)
            if converted is None:
                raise
            request = model.model_validate_json(converted)
    except ValidationError as error:
        raise _bad_request(error, body) from None
    _check_duplicates(body)
    return request


def _check_duplicates(body: bytes) -> None:
    """Reject duplicate fields, of which pydantic would take the last."""
    try:
        jiter.from_json(body, catch_duplicate_keys=True)
    except ValueError as error:
        reason = _lower_first(str(error)[:MAX_PATH])
        raise BadRequest(f"Invalid request body: {reason}.") from None


def _with_integers(error: ValidationError, body: bytes) -> bytes | None:
    """Convert numbers like `8.0`, which JSON does not distinguish from integers, to integers.

    Integers are validated strictly, so that neither `true` nor "8" is one.

    Returns:
        The converted body, or None if no integer field is invalid.
    """
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    invalid = [each["loc"] for each in errors if each["type"] == "int_type"]
    if not invalid:
        return None
    value = from_json(body)
    for path in (_json_path(location, value, keeps_last=False) for location in invalid):
        # Within a list, all its numbers are converted at once.
        *parents, last = path[:-1] if isinstance(path[-1], int) else path
        container = value
        for part in parents:
            container = container[part]
        container[last] = _integers(container[last])
    return to_json(value)


def _integers(value: Any) -> Any:
    """Convert a whole number, or the whole numbers in a list, to integers."""
    if isinstance(value, list):
        return [_integers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bad_request(error: ValidationError, body: bytes) -> BadRequest:
    errors = error.errors(include_url=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return BadRequest(f"The request body is not valid JSON: {errors[0]['ctx']['error']}.")
    # Of a union, report the member in which validation got the furthest.
    field = errors[0]["loc"][:1]
    same_field = [each for each in errors if each["loc"][:1] == field]
    first = max(same_field, key=lambda each: len(each["loc"]))
    kind, context = first["type"], first.get("ctx", {})
    value = from_json(body)
    location = _json_path(first["loc"], value, keeps_last=kind == "missing")
    if kind in ("field", "unknown_field"):
        location = (*location, context["field"])
    param = _format(location)
    if kind == "field":
        return BadRequest(f"'{param}' {context['reason']}.", param=param)
    if kind == "unknown_field":
        return BadRequest(f"Unknown field '{param}'.{context['hint']}", param=param)
    if kind == "missing":
        return BadRequest(f"Missing required field '{param}'.", param=param)
    invalid = [_json_path(each["loc"], value, keeps_last=False) for each in errors[:MAX_EXAMINED]]
    subject = f"'{param}'" if param else "request body"
    message = f"Invalid {subject}: {_lower_first(first['msg'])}.{_others(location, invalid)}"
    return BadRequest(message, param=param or None)


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:]


def _others(location: Location, invalid: Sequence[Location]) -> str:
    """Return a sentence about other invalid entries of the same list or object."""
    parent = location[:-1]
    others = [each for each in invalid if parent and each[:-1] == parent and each != location]
    names = [f"'{_format(each)}'" for each in dict.fromkeys(others)]
    if not names:
        return ""
    rest = f" and {len(names) - MAX_OTHERS} more" if len(names) > MAX_OTHERS else ""
    return f" Also invalid: {', '.join(names[:MAX_OTHERS])}{rest}."


def _format(location: Location) -> str:
    """Format `('messages', 0, 'content')` as `messages[0].content`, of bounded length."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")[:MAX_PATH]


def _json_path(location: Location, value: Any, *, keeps_last: bool) -> Location:
    """Remove from an error's location the names that pydantic gives to members of unions.

    Args:
        location: the location of the error.
        value: the JSON value that was validated.
        keeps_last: whether the last part is kept even though the value does not have it.
    """
    path: list[int | str] = []
    for position, part in enumerate(location, 1):
        if _contains(value, part):
            value = value[part]
        elif not (keeps_last and position == len(location)):
            continue
        path.append(part)
    return tuple(path)


def _contains(value: Any, part: int | str) -> bool:
    if isinstance(part, int):
        return isinstance(value, list) and part < len(value)
    return isinstance(value, dict) and part in value
