"""API keys: the tokens that clients send, and what the server stores of them."""

import hashlib
import re
import secrets
from dataclasses import dataclass

from proctor.server.config.access import ConfiguredKey, KeyLimits, Scope

PREFIX = "sk-proctor-"
TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{8}})-[0-9a-f]{{48}}")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, as the server knows it.

    Attributes:
        id: the eight hexadecimal digits of the token that are not secret.
        name: the name of the key in the ledger.
        scope: the scope of the key.
        hash: the SHA-256 of the token, by which the key is looked up. A slow hash is
            not needed, since the token has 192 random bits.
        limits: the limits of requests with the key.
    """

    id: str
    name: str
    scope: Scope
    hash: str
    limits: KeyLimits

    @classmethod
    def from_settings(cls, key: ConfiguredKey) -> "Key":
        """Return a key that is configured in the settings."""
        identifier, _, hashed = key.hash.partition(":")
        limits = KeyLimits(**{name: getattr(key, name) for name in KeyLimits.model_fields})
        return cls(identifier, key.name, key.scope, hashed, limits)


def make_token() -> str:
    """Generate a token."""
    return f"{PREFIX}{secrets.token_hex(4)}-{secrets.token_hex(24)}"


def id_of(token: str) -> str | None:
    """Return the ID in a token, or None if the token is malformed."""
    match = TOKEN.fullmatch(token)
    return None if match is None else match[1]


def hash_token(token: str) -> str:
    """Return the SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()
