"""`proctor keys …`: makes, lists and revokes keys."""

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from proctor.server.accounting.ledger.service import prepare
from proctor.server.accounting.reservation_store import ReservationStore
from proctor.server.auth.api_key import Key, hash_token, id_of, make_token
from proctor.server.auth.rate_limits import KeyUsage
from proctor.server.auth.store import KeyExists, KeyStore, StoredKey
from proctor.server.config.access import ConfiguredKey
from proctor.server.config.settings import ConfigError, Settings, load_settings
from proctor.server.pricing import NANO
from proctor.server.storage.database import open_database
from proctor.server.storage.errors import reason

LIMITS = {
    "max_thinking_tokens": "most thinking tokens of an answer",
    "tier": "the highest tier",
    "requests_per_minute": "in any 60 seconds",
    "tokens_per_minute": "in any 60 seconds, of prompts and answers",
    "per_day": "money that it may spend in a day (UTC)",
    "per_month": "money that it may spend in a month (UTC)",
}
WIDE = 200
"""Columns of text where no terminal sets a limit."""


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the commands to a parser of their own.

    Args:
        parser: takes them.
        config: what `--config` is about.
    """
    commands = parser.add_subparsers(dest="keys_command", required=True)
    create = commands.add_parser("create", help="make a key; it is shown this once")
    create.add_argument("name", help="what the ledger calls it")
    create.add_argument("--admin", action="store_true", help="for the metrics too")
    for name, text in LIMITS.items():
        create.add_argument(f"--{name.replace('_', '-')}", help=text)
    create.add_argument(
        "--model",
        action="append",
        dest="models",
        default=[],
        help="a name of the model by which it may be called; may be repeated",
    )
    create.add_argument(
        "--print",
        action="store_true",
        dest="printed",
        help="print it for proctor.toml instead of keeping it in the database",
    )
    commands.add_parser("list", help="list the keys, and what they have taken")
    revoke = commands.add_parser("revoke", help="let a key open nothing any more")
    revoke.add_argument("name", help="the key's name")
    for command in commands.choices.values():
        command.add_argument("--config", type=Path, help=config)


def run(options: argparse.Namespace) -> int:
    """Run the command that was chosen; the exit status.

    Raises:
        BadSettings: if there can be no keys where the ledger is said to be.
    """
    settings = load_settings({}, options.config)
    try:
        if options.keys_command == "create" and options.printed:
            _print_listed(settings, options)
        else:
            asyncio.run(_run(settings, options))
    except ValidationError as error:
        for wrong in error.errors():
            print(f"proctor: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}", file=sys.stderr)
        return 2
    except (KeyExists, LookupError, OSError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"proctor: the ledger cannot be used now: {reason(error)}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: Settings, options: argparse.Namespace) -> None:
    url = settings.ledger.url.get_secret_value()
    if not url:
        raise ConfigError("ledger.url: it is empty, and keys are in the ledger's database")
    await prepare(url)
    database = open_database(url)
    try:
        store = KeyStore(database)
        match options.keys_command:
            case "create":
                await _create(store, settings, options)
            case "list":
                await _list(store, ReservationStore(database), settings)
            case _:
                await _revoke(store, options.name)
    finally:
        await database.dispose()


async def _create(store: KeyStore, settings: Settings, options: argparse.Namespace) -> None:
    token = make_token()
    key = Key.from_settings(_listed(settings, options, token))
    await store.add(key)
    print(token)
    print(f"The key of '{key.name}' is shown this once: only its hash is kept.", file=sys.stderr)


async def _revoke(store: KeyStore, name: str) -> None:
    if not await store.revoke(name):
        raise LookupError(f"no key '{name}' of the database opens anything")
    print(f"'{name}' opens nothing any more, in 10 seconds at the latest.")


async def _list(store: KeyStore, reservations: ReservationStore, settings: Settings) -> None:
    now = datetime.now(UTC)
    table = Table(box=None)
    for column in ("name", "scope", "since", "limits"):
        table.add_column(column, overflow="fold")
    for column in ("requests/min", "tokens/min", "today", "this month"):
        table.add_column(column, justify="right")
    for listed in settings.keys:
        _add(
            table,
            Key.from_settings(listed),
            "in the settings",
            await reservations.use(listed.name, now),
        )
    for kept in await store.all():
        _add(table, kept.key, _since(kept), await reservations.use(kept.key.name, now))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _print_listed(settings: Settings, options: argparse.Namespace) -> None:
    token = make_token()
    told = _listed(settings, options, token).model_dump(mode="json", exclude_defaults=True)
    print("[[keys]]")
    for name, value in told.items():
        print(f"{name} = {json.dumps(value)}")
    print(f"The key, shown this once, whose table this is: {token}", file=sys.stderr)


def _listed(settings: Settings, options: argparse.Namespace, token: str) -> ConfiguredKey:
    """The key that was asked for.

    Raises:
        ValidationError: if a limit makes no sense.
        LookupError: if there is nothing here that a limit could be about.
        KeyExists: if the settings have one of its name.
    """
    limits = {name: getattr(options, name) for name in LIMITS}
    key = ConfiguredKey.model_validate(
        {
            "name": options.name,
            "hash": f"{id_of(token)}:{hash_token(token)}",
            "scope": "admin" if options.admin else "user",
            "models": options.models,
            **{name: value for name, value in limits.items() if value is not None},
        }
    )
    if key.tier is not None and settings.tier(key.tier) is None:
        names = ", ".join(tier.name for tier in settings.tiers)
        raise LookupError(f"tier: there is no '{key.tier}', only {names}")
    if key.spending and not settings.priced:
        raise LookupError("per_day, per_month: they need prices, set [prices] or [compute]")
    if any(listed.name == key.name for listed in settings.keys):
        raise KeyExists(f"there is a key '{key.name}' in the settings already")
    return key


def _add(table: Table, key: Key, since: str, use: KeyUsage) -> None:
    told = key.limits.model_dump(mode="json", exclude_defaults=True)
    table.add_row(
        key.name,
        key.scope.value,
        since,
        ", ".join(f"{name} {value}" for name, value in told.items()) or "none",
        str(use.requests),
        str(use.tokens),
        *(f"{nanos * NANO:.6f}" for nanos in (use.day, use.month)),
    )


def _since(kept: StoredKey) -> str:
    if kept.revoked is not None:
        return f"revoked {kept.revoked:%Y-%m-%d}"
    return f"{kept.created:%Y-%m-%d}"
