"""The command `proctor keys`: creates, lists and revokes API keys."""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings, load_settings
from proctor.server.nanos import NANO
from proctor.server.storage.database import open_database
from proctor.server.storage.errors import reason

LIMITS = {
    "max_thinking_tokens": "maximum number of thinking tokens of an answer",
    "tier": "highest tier",
    "requests_per_minute": "maximum number of requests in any 60 seconds",
    "tokens_per_minute": "maximum number of tokens of prompts and answers in any 60 seconds",
    "per_day": "spending limit per day (UTC)",
    "per_month": "spending limit per month (UTC)",
}
SESSION_LIMITS = {
    "max_thinking_tokens": "maximum number of thinking tokens of a session",
    "max_tokens": "maximum number of tokens of a session's prompts and answers",
    "max_cost": "maximum cost of a session",
    "max_requests": "maximum number of requests of a session",
    "max_seconds": "maximum time from a session's first request to the end of its last",
}
WIDE = 200
"""The width of tables, in columns, if the output is not a terminal."""


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the subcommands to a parser.

    Args:
        parser: the parser of the command.
        config: the help of `--config`.
    """
    commands = parser.add_subparsers(dest="keys_command", required=True)
    create = commands.add_parser("create", help="create a key; it is shown only once")
    create.add_argument("name", help="name of the key in the ledger")
    create.add_argument("--admin", action="store_true", help="allow access to the metrics too")
    for name, text in LIMITS.items():
        create.add_argument(f"--{name.replace('_', '-')}", help=text)
    for name, text in SESSION_LIMITS.items():
        create.add_argument(f"--session-{name.replace('_', '-')}", help=text)
    create.add_argument(
        "--single-session",
        action="store_true",
        help="make all requests of the key one session, named after the key",
    )
    create.add_argument(
        "--model",
        action="append",
        dest="models",
        default=[],
        help="name of the model that requests may use (default: all); may be repeated",
    )
    create.add_argument(
        "--print",
        action="store_true",
        dest="printed",
        help="print the key for proctor.toml instead of storing it in the database",
    )
    commands.add_parser("list", help="list the keys and their usage")
    revoke = commands.add_parser("revoke", help="revoke a key")
    revoke.add_argument("name", help="name of the key")
    for command in commands.choices.values():
        command.add_argument("--config", type=Path, help=config)


def run(options: argparse.Namespace) -> int:
    """Run the selected subcommand, and return the exit status.

    Raises:
        ConfigError: if a setting is invalid, or there is no ledger.
    """
    settings = load_settings({}, options.config)
    try:
        if options.keys_command == "create" and options.printed:
            _print_configured(settings, options)
        else:
            asyncio.run(_run(settings, options))
    except ValidationError as error:
        for each in error.errors():
            print(f"proctor: {'.'.join(map(str, each['loc']))}: {each['msg']}", file=sys.stderr)
        return 2
    except (KeyExists, LookupError, OSError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"proctor: The ledger cannot be used: {reason(error)}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: Settings, options: argparse.Namespace) -> None:
    url = settings.ledger.url.get_secret_value()
    if not url:
        raise ConfigError("ledger.url: Must be set, since keys are stored in the ledger's database")
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
    key = Key.from_settings(_configured(settings, options, token))
    await store.add(key)
    print(token)
    print(f"This key of '{key.name}' is shown only once: only its hash is stored.", file=sys.stderr)


async def _revoke(store: KeyStore, name: str) -> None:
    if not await store.revoke(name):
        raise LookupError(f"No active key named '{name}' in the database.")
    print(f"Revoked '{name}'. The key is rejected after at most 10 seconds.")


async def _list(store: KeyStore, reservations: ReservationStore, settings: Settings) -> None:
    now = datetime.now(UTC)
    table = Table(box=None)
    for column in ("name", "scope", "since", "limits"):
        table.add_column(column, overflow="fold")
    for column in ("requests/min", "tokens/min", "today", "this month"):
        table.add_column(column, justify="right")
    for configured in settings.keys:
        _add(
            table,
            Key.from_settings(configured),
            "in the settings",
            await reservations.usage(configured.name, now),
        )
    for stored in await store.all():
        _add(table, stored.key, _since(stored), await reservations.usage(stored.key.name, now))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _print_configured(settings: Settings, options: argparse.Namespace) -> None:
    token = make_token()
    fields = _configured(settings, options, token).model_dump(mode="json", exclude_defaults=True)
    print("[[keys]]")
    for name, value in fields.items():
        print(f"{name} = {_to_toml(value)}")
    print(f"The key, which is shown only once: {token}", file=sys.stderr)


def _to_toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{name} = {json.dumps(part)}" for name, part in value.items()) + " }"
        )
    return json.dumps(value)


def _configured(settings: Settings, options: argparse.Namespace, token: str) -> ConfiguredKey:
    """Return the key that the options describe.

    Raises:
        ValidationError: if a limit is invalid.
        LookupError: if the server has no such tier, or no prices for a spending limit.
        KeyExists: if the settings have a key with the same name.
    """
    limits = {name: getattr(options, name) for name in LIMITS}
    session = {name: getattr(options, f"session_{name}") for name in SESSION_LIMITS}
    key = ConfiguredKey.model_validate(
        {
            "name": options.name,
            "hash": f"{id_of(token)}:{hash_token(token)}",
            "scope": "admin" if options.admin else "user",
            "models": options.models,
            "session": {"single": options.single_session, **_without_none(session)},
            **_without_none(limits),
        }
    )
    if key.tier is not None and settings.tier(key.tier) is None:
        names = ", ".join(tier.name for tier in settings.tiers)
        raise LookupError(f"tier: Unknown tier '{key.tier}'; tiers are {names}")
    if key.spending and not settings.priced:
        raise LookupError("per_day, per_month: Spending limits require [prices] or [compute]")
    if key.session.max_cost is not None and not settings.priced:
        raise LookupError("session.max_cost: A limit of cost requires [prices] or [compute]")
    if any(configured.name == key.name for configured in settings.keys):
        raise KeyExists(f"A key named '{key.name}' already exists in the settings.")
    return key


def _add(table: Table, key: Key, since: str, use: KeyUsage) -> None:
    limits = key.limits.model_dump(mode="json", exclude_defaults=True)
    session = limits.pop("session", {})
    limits |= {f"session.{name}": value for name, value in session.items()}
    table.add_row(
        key.name,
        key.scope.value,
        since,
        ", ".join(f"{name} {value}" for name, value in limits.items()) or "none",
        str(use.requests),
        str(use.tokens),
        *(f"{nanos * NANO:.6f}" for nanos in (use.day, use.month)),
    )


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _since(stored: StoredKey) -> str:
    if stored.revoked is not None:
        return f"revoked {stored.revoked:%Y-%m-%d}"
    return f"{stored.created:%Y-%m-%d}"
