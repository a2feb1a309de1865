"""Keys, and what asks with them."""

from typing import Any

from proctor.server.auth.api_key import Key, hash_token, id_of, make_token
from proctor.server.config.access import KeyLimits, Scope


def make_key(name: str = "team", scope: Scope = Scope.USER, **limits: Any) -> tuple[Key, str]:
    """A key, and its token."""
    token = make_token()
    number = id_of(token)
    assert number is not None
    return Key(number, name, scope, hash_token(token), KeyLimits(**limits)), token


def listed(name: str = "team", scope: str = "user", **limits: Any) -> tuple[dict[str, Any], str]:
    """A key as the settings have it, and its token."""
    token = make_token()
    told = {"name": name, "scope": scope, "hash": f"{id_of(token)}:{hash_token(token)}", **limits}
    return told, token


def bearer(token: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"authorization": f"Bearer {token}"}
