"""The command `proctor records`: the secrets that protect the records of turns."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from proctor.server.accounting.ledger.service import prepare
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings, load_settings
from proctor.server.storage.database import open_database
from proctor.server.storage.errors import reason
from proctor.server.turns.keyring import Secret
from proctor.server.turns.store import SecretStore

KEEP_DAYS = 7
MAX_DAYS = 3650


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the subcommands to a parser.

    Args:
        parser: the parser of the command.
        config: the help of `--config`.
    """
    commands = parser.add_subparsers(dest="records_command", required=True)
    rotate = commands.add_parser("rotate", help="protect new records with a new secret")
    rotate.add_argument(
        "--keep-days",
        type=_days,
        default=KEEP_DAYS,
        metavar="DAYS",
        help="days for which records of earlier secrets stay valid; 0 if a secret was disclosed "
        f"(default: {KEEP_DAYS})",
    )
    rotate.add_argument("--config", type=Path, help=config)


def run(options: argparse.Namespace) -> int:
    """Run the selected subcommand, and return the exit status.

    Raises:
        ConfigError: if a setting is invalid, or the secrets are not in a database.
    """
    url = _url(load_settings({}, options.config))
    try:
        secret = asyncio.run(_rotate(url, timedelta(days=options.keep_days)))
    except OSError as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"proctor: The ledger cannot be used: {reason(error)}", file=sys.stderr)
        return 1
    print(
        f"Made the secret {secret.id.hex()}. Servers use it after at most 70 seconds; records of "
        f"earlier secrets are valid for {options.keep_days} days."
    )
    return 0


async def _rotate(url: str, keep: timedelta) -> Secret:
    await prepare(url)
    database = open_database(url)
    try:
        return await SecretStore(database).rotate(datetime.now(UTC), keep)
    finally:
        await database.dispose()


def _url(settings: Settings) -> str:
    if settings.auth.record_secrets:
        raise ConfigError("auth.record_secrets: Is set; put a new secret in front of the others")
    url = settings.ledger.url.get_secret_value()
    if not url:
        raise ConfigError("ledger.url: Must be set, since secrets are stored in its database")
    return url


def _days(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_DAYS:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of days from 0 to {MAX_DAYS}")
    return int(text)
