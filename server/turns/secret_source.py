"""Where a gateway has the secrets of records from."""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Protocol

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.errors import SOON, Unavailable
from proctor.server.storage.errors import reason
from proctor.server.turns.keyring import KEY_BYTES, Keyring, issuing_first
from proctor.server.turns.store import SecretStore

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
"""The age at which the secrets are read again, so that a rotation takes effect."""

RETRY_SECONDS = 1.0
"""The time between two reads because of records with an unknown secret, or after failed reads.
Below `SIGNS_AFTER`, so that the first record of a new secret is recognized."""

PATIENCE_SECONDS = 5.0
"""The maximum time that a request waits for the database."""


class SecretSource(Protocol):
    """Provides the keyring."""

    async def keyring(self, wanted: Collection[bytes] = ()) -> Keyring:
        """Return the current keyring.

        Args:
            wanted: the ids of the secrets of records that the request has.

        Raises:
            Unavailable: if the secrets have never been read, and cannot be read now.
        """


class FixedSecrets:
    """Secrets from the settings, or of this process only."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._keyring = Keyring.of(secrets)

    async def keyring(self, wanted: Collection[bytes] = ()) -> Keyring:
        """Return the keyring."""
        return self._keyring


class StoredSecrets:
    """Secrets in the ledger's database, which the gateways on it share.

    They are read when a request needs them: every `REFRESH_SECONDS`, and at most every
    `RETRY_SECONDS` if one is unknown. If the database is unavailable, those read before are used.
    """

    def __init__(self, store: SecretStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._keyring: Keyring | None = None
        self._tried_at = -math.inf
        self._lock = asyncio.Lock()

    async def keyring(self, wanted: Collection[bytes] = ()) -> Keyring:
        """Return the keyring, see `SecretSource`.

        Raises:
            Unavailable: if the secrets have never been read, and cannot be read now.
        """
        if self._is_due(wanted):
            async with self._lock:
                if self._is_due(wanted):
                    await self._read()
        if self._keyring is None:
            message = "The secrets of thinking records cannot be read now. Try again later."
            raise Unavailable(message, headers=SOON)
        return self._keyring

    def _is_due(self, wanted: Collection[bytes]) -> bool:
        known = {} if self._keyring is None else self._keyring.by_id
        is_missing = self._keyring is None or any(each not in known for each in wanted)
        age = self._clock() - self._tried_at
        return age >= (RETRY_SECONDS if is_missing else REFRESH_SECONDS)

    async def _read(self) -> None:
        now = datetime.now(UTC)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                found = await self._store.get_or_create(now)
        except Exception as error:  # each driver has exceptions of its own
            logger.warning("The secrets of thinking records cannot be read: %s", reason(error))
        else:
            self._keyring = Keyring.of([each.value for each in issuing_first(found, now)])
        self._tried_at = self._clock()


def open_secrets(configured: Sequence[SecretStr], database: AsyncEngine | None) -> SecretSource:
    """Return the secrets of the settings, else those of the database, else a new one."""
    if configured:
        return FixedSecrets([secret.get_secret_value().encode() for secret in configured])
    if database is not None:
        return StoredSecrets(SecretStore(database))
    return FixedSecrets([secrets.token_bytes(KEY_BYTES)])
