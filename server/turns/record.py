"""The record of a thinking block: what it cost, in a string that only the server can make.

Clients keep the string with the block and send it back with the history: as `signature` of
`/v1/messages`, as `encrypted_content` of `/v1/responses`. It is base64url without padding, of

- a head: version, form, id of the secret;
- form 1: the claims and their HMAC-SHA256, together with the head;
- form 2, sealed: a nonce, and the claims and the text of the block in AES-256-GCM, authenticated
  together with the head.
"""

import hmac
import os
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proctor.server.turns.keyring import ID_BYTES, RecordKeys

VERSION, SIGNED, SEALED = 1, 1, 2

MAX_LENGTH = 2**22
"""Characters of the longest record. A longer text is not sealed: its record comes without it."""

TURN_BYTES = 16
MAC_BYTES = 32
NONCE_BYTES = 24
GCM_NONCE_BYTES = 12
GCM_TAG_BYTES = 16

HEAD = struct.Struct(f">BB{ID_BYTES}s")
CLAIMS = struct.Struct(">16s16s32sQQQ")
HEAD_LENGTH = 16
"""Characters of a record that hold its whole head."""

MAX_TEXT_BYTES = MAX_LENGTH * 3 // 4 - HEAD.size - NONCE_BYTES - CLAIMS.size - GCM_TAG_BYTES


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """The account of a thinking block.

    Attributes:
        tenant: stands for the API key, see `RecordKeys.tenant`.
        turn: the id of the turn, made at random at its first call.
        digest: the digest of the block's text, see `RecordKeys.digest`.
        tokens: the thinking tokens of the block.
        spent: the thinking tokens of the turn up to the end of the block.
        time: when the block ended, in milliseconds since the Unix epoch.
        text: the text of the block, if the record is sealed.
    """

    tenant: bytes
    turn: bytes
    digest: bytes
    tokens: int
    spent: int
    time: int
    text: str | None = None


def encode(record: TurnRecord, keys: RecordKeys) -> str:
    """Return a record as a string, sealed if it has a text of at most `MAX_TEXT_BYTES`."""
    claims = CLAIMS.pack(
        record.tenant, record.turn, record.digest, record.tokens, record.spent, record.time
    )
    text = None if record.text is None else record.text.encode(errors="surrogatepass")
    if text is None or len(text) > MAX_TEXT_BYTES:
        head = HEAD.pack(VERSION, SIGNED, keys.id)
        return _to_text(head + claims + hmac.digest(keys.signing, head + claims, "sha256"))
    head, nonce = HEAD.pack(VERSION, SEALED, keys.id), os.urandom(NONCE_BYTES)
    cipher, gcm_nonce = _cipher(keys, nonce)
    return _to_text(head + nonce + cipher.encrypt(gcm_nonce, claims + text, head))


def secret_id(encoded: str) -> bytes | None:
    """Return the id of the secret that a string claims to be protected with, None if it has none.

    Foreign strings may claim one too; `decode` tells.
    """
    if len(encoded) > MAX_LENGTH:
        return None
    raw = _from_text(encoded[:HEAD_LENGTH])
    if raw is None or len(raw) < HEAD.size:
        return None
    version, form, identifier = HEAD.unpack_from(raw)
    return identifier if version == VERSION and form in (SIGNED, SEALED) else None


def decode(encoded: str, keys: RecordKeys) -> TurnRecord | None:
    """Return the record in a string, None if these keys did not make exactly this string."""
    if secret_id(encoded) != keys.id:
        return None
    raw = _from_text(encoded)
    if raw is None:
        return None
    head, rest = raw[: HEAD.size], raw[HEAD.size :]
    _, form, _ = HEAD.unpack(head)
    plain = _verify(head, rest, keys) if form == SIGNED else _unseal(head, rest, keys)
    if plain is None:
        return None
    text = plain[CLAIMS.size :].decode(errors="surrogatepass") if form == SEALED else None
    tenant, turn, digest, tokens, spent, time = CLAIMS.unpack_from(plain)
    return TurnRecord(tenant, turn, digest, tokens, spent, time, text)


def _verify(head: bytes, rest: bytes, keys: RecordKeys) -> bytes | None:
    claims, mac = rest[: CLAIMS.size], rest[CLAIMS.size :]
    expected = hmac.digest(keys.signing, head + claims, "sha256")
    return claims if hmac.compare_digest(mac, expected) else None


def _unseal(head: bytes, rest: bytes, keys: RecordKeys) -> bytes | None:
    if len(rest) < NONCE_BYTES + CLAIMS.size + GCM_TAG_BYTES:
        return None
    cipher, gcm_nonce = _cipher(keys, rest[:NONCE_BYTES])
    try:
        return cipher.decrypt(gcm_nonce, rest[NONCE_BYTES:], head)
    except InvalidTag:
        return None


def _cipher(keys: RecordKeys, nonce: bytes) -> tuple[AESGCM, bytes]:
    """Return the cipher of one record, and its nonce.

    The first half of the nonce derives a key of its own: random nonces of GCM's 96 bits alone
    would allow only 2**32 records per key.
    """
    key = hmac.digest(keys.sealing, nonce[:-GCM_NONCE_BYTES], "sha256")
    return AESGCM(key), nonce[-GCM_NONCE_BYTES:]


def _to_text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_text(text: str) -> bytes | None:
    """Return the bytes of a string; None if it is not their only encoding."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        return None
    return raw if _to_text(raw) == text else None
