"""Which session a request names, and which limits it sets."""

from decimal import Decimal

import pytest

from proctor.server.config.sessions import SessionLimits
from proctor.server.errors import BadRequest
from proctor.server.schemas.sessions import SessionFields, session_names
from proctor.server.sessions.names import UNNAMED, RequestedSession, read_session

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("headers", "field", "names", "expected"),
    [
        ({}, None, [], UNNAMED),
        ({"x-session-id": "a"}, None, ["b"], RequestedSession("a", True)),
        ({"session-id": "b"}, "a", [], RequestedSession("a", True)),
        ({"x-session-id": "a"}, "a", [], RequestedSession("a", True)),
        ({"x-claude-code-session-id": "a", "session-id": "b"}, None, ["c"], RequestedSession("a")),
        ({"session-id": "b"}, None, ["c"], RequestedSession("b")),
        ({}, None, ["two words", "x" * 129, "c", "d"], RequestedSession("c")),
        ({"session-id": ""}, None, ["\n"], UNNAMED),
    ],
)
def test_the_most_specific_name_counts(
    headers: dict[str, str], field: str | None, names: list[str], expected: RequestedSession
) -> None:
    fields = None if field is None else SessionFields(id=field)

    assert read_session(headers, fields, names) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt_cache_key": "k", "conversation": "c", "metadata": {"session_id": "s"}}, "s c k"),
        ({"conversation": {"id": "c"}, "metadata": {"user_id": "u"}}, "u c"),
        ({"metadata": {"user_id": f"user_1f_account__session_{UUID}"}}, UUID),
        ({"metadata": {"user_id": f'{{"device_id":"d","session_id":"{UUID}"}}'}}, UUID),
        ({"metadata": {"session_id": 7}, "conversation": [], "prompt_cache_key": None}, ""),
        ({"metadata": "text"}, ""),
        ({}, ""),
    ],
)
def test_names_are_read_from_other_fields(fields: dict[str, object], expected: str) -> None:
    assert " ".join(session_names(fields)) == expected


@pytest.mark.parametrize("header", ["", "two words", "-a", "a/b", "x" * 129, "ä"])
def test_an_invalid_id_is_refused_in_the_header_of_its_own(header: str) -> None:
    with pytest.raises(BadRequest, match="'x-session-id' must have") as refused:
        read_session({"x-session-id": header}, None, ["b"])
    assert refused.value.param == "x-session-id"


def test_two_ids_contradict_each_other() -> None:
    with pytest.raises(BadRequest, match="leave one of them out"):
        read_session({"x-session-id": "a"}, SessionFields(id="b"), [])


def test_the_lower_one_of_two_limits_counts() -> None:
    headers = {
        "x-session-max-thinking-tokens": "100",
        "x-session-max-cost": "0.10",
        "x-session-max-seconds": "60",
    }
    fields = SessionFields(max_thinking_tokens=200, max_cost=0.1, max_requests=3, max_tokens=9)

    limits = read_session(headers, fields, []).limits

    assert limits == SessionLimits(
        max_thinking_tokens=100,
        max_cost=Decimal("0.1"),
        max_requests=3,
        max_tokens=9,
        max_seconds=60,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-session-max-thinking-tokens", "-1"),
        ("x-session-max-tokens", "many"),
        ("x-session-max-cost", "nan"),
        ("x-session-max-requests", "0"),
        ("x-session-max-seconds", "inf"),
    ],
)
def test_an_invalid_limit_is_refused_by_the_name_of_its_header(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match=f"Invalid '{name}': ") as refused:
        read_session({name: value}, None, [])
    assert refused.value.param == name
