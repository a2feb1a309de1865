"""The salts that separate the prefixes of API keys in the replicas' caches."""

import hashlib
import hmac


class CacheSalt:
    """Derives the salt of each owner from a secret: the same in all gateways that share it."""

    def __init__(self, secret: str) -> None:
        """Create the source of salts.

        Args:
            secret: empty for one cache for all.
        """
        self._secret = secret.encode()

    def __call__(self, owner: str) -> str:
        """Return the salt of an owner, 64 hexadecimal digits; empty without a secret."""
        if not self._secret:
            return ""
        return hmac.new(self._secret, owner.encode(), hashlib.sha256).hexdigest()
