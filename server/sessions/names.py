"""Reads which session a request names, and the limits that it sets for it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from pydantic import ValidationError

from proctor.server.config.limits import SESSION_ID
from proctor.server.config.sessions import SessionLimits
from proctor.server.errors import BadRequest
from proctor.server.schemas.sessions import SessionFields

ID_HEADER = "x-session-id"
CLIENT_HEADERS = ("x-claude-code-session-id", "session-id")
"""The headers in which Claude Code and Codex send their session."""

LIMIT_HEADERS = {
    name: f"x-session-{name.replace('_', '-')}" for name in SessionLimits.limit_names()
}
"""The headers that set limits, for clients that cannot add fields to the body."""

NO_LIMITS = SessionLimits()


@dataclass(frozen=True, slots=True)
class RequestedSession:
    """The session that a request names.

    Attributes:
        id: the ID of the session, or None if the request names none.
        explicit: whether the request names it in a field or header of Proctor, rather than in
            one that also serves other purposes.
        limits: the limits that the request sets for the session.
    """

    id: str | None = None
    explicit: bool = False
    limits: SessionLimits = NO_LIMITS


UNNAMED = RequestedSession()


def read_session(
    headers: Mapping[str, str], fields: SessionFields | None, names: Iterable[str]
) -> RequestedSession:
    """Return the session that a request names.

    Proctor's own header and field take precedence, then the headers of known clients. Names that
    cannot be the ID of a session are skipped, except in Proctor's own.

    Args:
        headers: the headers of the request.
        fields: the `session` of its body, or None.
        names: other names in its body, in order of precedence; see `session_names`.

    Raises:
        BadRequest: if a header is invalid, or contradicts the body.
    """
    limits, named = _limits(headers, fields), None if fields is None else fields.id
    header = headers.get(ID_HEADER)
    if header is not None and not _is_id(header):
        raise BadRequest(
            f"'{ID_HEADER}' must have at most 128 letters, digits and '._:@=+-', and begin with a "
            "letter or digit",
            param=ID_HEADER,
        )
    if header is not None and named not in (None, header):
        raise BadRequest(
            f"'{ID_HEADER}' is '{header}', but 'session.id' is '{named}': leave one of them out",
            param="session.id",
        )
    explicit = header or named
    if explicit is not None:
        return RequestedSession(explicit, True, limits)
    sent = (headers.get(name) for name in CLIENT_HEADERS)
    candidates = (name for name in (*sent, *names) if name is not None and _is_id(name))
    return RequestedSession(next(candidates, None), False, limits)


def _is_id(name: str) -> bool:
    return re.fullmatch(SESSION_ID, name) is not None


def _limits(headers: Mapping[str, str], fields: SessionFields | None) -> SessionLimits:
    """Return the lower one of each pair of limits in the headers and in the body."""
    sent = {name: headers[header] for name, header in LIMIT_HEADERS.items() if header in headers}
    if fields is None and not sent:
        return NO_LIMITS
    try:
        by_headers = SessionLimits.model_validate(sent)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        header = LIMIT_HEADERS[str(first["loc"][0])]
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise BadRequest(f"Invalid '{header}': {message}.", param=header) from None
    fields = fields or SessionFields()
    # Through text: the exact value of the float 0.1 has 55 digits.
    cost = None if fields.max_cost is None else Decimal(str(fields.max_cost))
    return by_headers.lowered_by(
        SessionLimits(
            max_thinking_tokens=fields.max_thinking_tokens,
            max_tokens=fields.max_tokens,
            max_cost=cost,
            max_requests=fields.max_requests,
            max_seconds=fields.max_seconds,
        )
    )
