"""A key: what a client shows, and what is kept of it."""

import hashlib
import re
import secrets
from dataclasses import dataclass

from proctor.server.config.access import ConfiguredKey, KeyLimits, Scope

PREFIX = "sk-proctor-"
TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{8}})-[0-9a-f]{{48}}")


@dataclass(frozen=True, slots=True)
class Key:
    """What the server knows of a key.

    Attributes:
        id: eight hexadecimal digits of the token, which are no secret.
        name: what the ledger calls it.
        scope: what it opens.
        hash: the SHA-256 of the token, by which it is looked up. The token holds 192
            random bits, which no slow hash has to protect.
        limits: what requests with it may do and take.
    """

    id: str
    name: str
    scope: Scope
    hash: str
    limits: KeyLimits

    @classmethod
    def listed(cls, key: ConfiguredKey) -> "Key":
        """A key that stands in the settings."""
        number, _, hashed = key.hash.partition(":")
        limits = KeyLimits(**{name: getattr(key, name) for name in KeyLimits.model_fields})
        return cls(number, key.name, key.scope, hashed, limits)


def make_token() -> str:
    """A new token."""
    return f"{PREFIX}{secrets.token_hex(4)}-{secrets.token_hex(24)}"


def id_of(token: str) -> str | None:
    """The id of a token's key, None if it is no token."""
    found = TOKEN.fullmatch(token)
    return None if found is None else found[1]


def hash_token(token: str) -> str:
    """What is kept of a token, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()
