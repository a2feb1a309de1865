"""What happens once before a server starts, in however many processes."""

import asyncio
import logging
import os

from proctor.server.accounting.ledger.service import prepare
from proctor.server.auth.store import has_keys
from proctor.server.cli.terminal import exit_successfully, on_signals
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings

logger = logging.getLogger(__name__)


def prepare_to_serve(settings: Settings) -> None:
    """Migrate the ledger, and check that a public server has a key.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    start_logging()
    on_signals(exit_successfully)
    _migrate(settings.ledger.url.get_secret_value())
    _check_keys(settings)


def start_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def _migrate(ledger: str) -> None:
    """Migrate the ledger. The server starts even if the database is unavailable.

    Raises:
        ConfigError: if the ledger cannot be used.
    """
    if not ledger:
        return
    try:
        asyncio.run(prepare(ledger))
    except OSError as error:
        logger.warning("%s; rows are written later", error)


def _check_keys(settings: Settings) -> None:
    """Check that a server on a public address has a key, or that `auth.required` is set.

    Raises:
        ConfigError: if it has no key and the setting is missing.
    """
    if settings.auth.required is not None or not settings.asks_for_keys or settings.keys:
        return
    if not asyncio.run(has_keys(settings.ledger)):
        raise ConfigError(
            f"host: The public address {settings.host} requires an API key. Create one with "
            "'proctor keys create NAME', set auth.required = true to create one later, or set "
            "auth.required = false to disable authentication"
        )
