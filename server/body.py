"""From a request's bytes to a request, or to a 400 that names the field."""

from typing import Any

from fastapi import Request
from pydantic import ValidationError

from server.errors import BadRequest, BodyTooLarge
from server.schemas import ChatRequest

MAX_PATH = 128


async def read_body(request: Request, at_most: int) -> bytes:
    """The whole body, counted while it comes.

    Raises:
        BodyTooLarge: if it is over `at_most` bytes.
        ClientDisconnect: if the client went away.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > at_most:
            # What is left of the body is not read, so the connection cannot serve on.
            raise BodyTooLarge(
                f"the request's body is over {at_most} bytes: send less",
                headers={"connection": "close"},
            )
    return bytes(body)


def parse_chat(body: bytes) -> ChatRequest:
    """The request in a body.

    Raises:
        BadRequest: if it is not one; the first field at fault is named.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _bad_request(error) from None


def _bad_request(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    context: dict[str, Any] = first.get("ctx", {})
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not valid JSON: {context['error']}")
    if first["type"] == "field":
        param = _path((*first["loc"], context["field"]))
        return BadRequest(f"'{param}' {context['reason']}", param=param)
    param = _path(first["loc"])
    if first["type"] == "missing":
        return BadRequest(f"'{param}' is required", param=param)
    what = f"'{param}'" if param else "the body"
    message = first["msg"][0].lower() + first["msg"][1:]
    return BadRequest(f"{what} is wrong: {message}", param=param or None)


def _path(location: tuple[int | str, ...]) -> str:
    """`('messages', 0, 'content')` as `messages[0].content`, of bounded length."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")[:MAX_PATH]
