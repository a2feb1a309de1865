"""API keys for tests."""

from typing import Any

from proctor.server.auth.api_key import Key, hash_token, id_of, make_token
from proctor.server.config.access import KeyLimits, Scope


def make_key(name: str = "team", scope: Scope = Scope.USER, **limits: Any) -> tuple[Key, str]:
    """Return a key and its token."""
    token = make_token()
    key_id = id_of(token)
    assert key_id is not None
    return Key(key_id, name, scope, hash_token(token), KeyLimits(**limits)), token


def configured_key(
    name: str = "team", scope: str = "user", **limits: Any
) -> tuple[dict[str, Any], str]:
    """Return a key as an entry of the setting `keys`, and its token."""
    token = make_token()
    entry = {"name": name, "scope": scope, "hash": f"{id_of(token)}:{hash_token(token)}", **limits}
    return entry, token


def bearer(token: str) -> dict[str, str]:
    """Return the authorization header of a token."""
    return {"authorization": f"Bearer {token}"}
