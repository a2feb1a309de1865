"""The secrets that protect records, and the keys derived from them."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ID_BYTES = 8
KEY_BYTES = 32
TENANT_BYTES = 16

SIGNS_AFTER = timedelta(seconds=10)
"""The age from which a secret signs. Gateways that read the secrets when they meet an unknown one
would otherwise take the first records of a new secret for foreign."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that gateways share.

    Attributes:
        value: the secret.
        created: when it was made.
        expires: when its records become invalid; None for the newest secret.
    """

    value: bytes = field(repr=False)
    created: datetime
    expires: datetime | None = None

    @property
    def id(self) -> bytes:
        """The public id of the secret, which its records carry."""
        return _derive(self.value, "id", ID_BYTES)


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """The keys of one secret, one for each purpose.

    Attributes:
        id: the id of the secret.
        signing: authenticates records.
        sealing: encrypts records that carry text.
        naming: hashes the names of API keys.
        digesting: hashes texts.
    """

    id: bytes
    signing: bytes = field(repr=False)
    sealing: bytes = field(repr=False)
    naming: bytes = field(repr=False)
    digesting: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> "RecordKeys":
        """Derive the keys of a secret."""
        purposes = ("signing", "sealing", "naming", "digesting")
        keys = {purpose: _derive(secret, purpose, KEY_BYTES) for purpose in purposes}
        return cls(_derive(secret, "id", ID_BYTES), **keys)

    def tenant(self, name: str) -> bytes:
        """Return what stands for the name of an API key in records."""
        return hmac.digest(self.naming, name.encode(), "sha256")[:TENANT_BYTES]

    def digest(self, text: str) -> bytes:
        """Return the digest of a text, keyed so that short texts cannot be guessed from it."""
        return hmac.digest(self.digesting, text.encode(errors="surrogatepass"), "sha256")


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys that records may be protected with.

    Attributes:
        issuing: the keys of new records.
        by_id: all keys, by the id of their secret.
    """

    issuing: RecordKeys
    by_id: Mapping[bytes, RecordKeys]

    @classmethod
    def of(cls, secrets: Sequence[bytes]) -> "Keyring":
        """Return the keyring of one or more secrets, of which the first protects new records."""
        keys = [RecordKeys.of(secret) for secret in secrets]
        return cls(keys[0], {each.id: each for each in keys})


def issuing_first(secrets: Sequence[Secret], now: datetime) -> list[Secret]:
    """Sort secrets such that the one for new records is the first.

    That is the newest one of some age, as gateways do not learn of a new one at the same time; the
    oldest if all are new.
    """
    newest_first = sorted(secrets, key=lambda secret: secret.created, reverse=True)
    settled = [secret for secret in newest_first if secret.created <= now - SIGNS_AFTER]
    issuing = (settled or newest_first[-1:])[:1]
    return issuing + [secret for secret in newest_first if secret not in issuing]


def _derive(secret: bytes, purpose: str, length: int) -> bytes:
    info = f"proctor turn record 1: {purpose}".encode()
    return HKDF(SHA256(), length, salt=None, info=info).derive(secret)
