"""What happens once before a server starts, in however many processes, and `check-config`."""

import asyncio
import logging
import os
from pathlib import Path

from proctor.server.accounting.ledger.service import prepare
from proctor.server.admission.routing import Router
from proctor.server.auth.store import has_keys
from proctor.server.cli.address import check_addresses, url_of
from proctor.server.cli.terminal import exit_successfully, on_signals
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings

logger = logging.getLogger(__name__)


def prepare_to_serve(settings: Settings) -> None:
    """Check the model's path, migrate the ledger, and check the keys and the addresses.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    start_logging()
    on_signals(exit_successfully)
    check_model(settings)
    _migrate(settings.ledger.url.get_secret_value())
    _check_keys(settings)
    check_addresses(settings)


def check_model(settings: Settings) -> None:
    """Check that models which are paths exist; names are looked up when they are loaded.

    Raises:
        ConfigError: if one does not.
    """
    models = {"model": settings.model_path}
    models |= {f"models.{at}.model": each.model for at, each in enumerate(settings.models)}
    for setting, model in models.items():
        is_path = model.startswith(("/", ".", "~")) or model.count("/") > 1
        if is_path and not Path(model).exists():
            raise ConfigError(
                f"{setting}: There is no file or folder {model}: pass the folder of a model, or "
                "its name on Hugging Face, like Qwen/Qwen3-8B"
            )


def check_config(settings: Settings) -> int:
    """Check what can be checked without a model or a database, and return the exit status.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    check_model(settings)
    Router.load(settings.router)
    address = url_of(settings.host, settings.port)
    print(f"The settings are valid: {settings.model_name} at {address}.")
    return 0


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
