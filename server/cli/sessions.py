"""The command `proctor sessions`: lists sessions, and shows what one has used."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from proctor.server.api.ledger.sessions import to_card
from proctor.server.config.section import ConfigError
from proctor.server.config.sessions import Limit
from proctor.server.config.settings import Settings, load_settings
from proctor.server.nanos import NANO
from proctor.server.schemas.responses import SessionCard
from proctor.server.sessions.limits import format_amount
from proctor.server.sessions.report import SessionReader, SessionReport
from proctor.server.storage.database import open_database, sqlite_file
from proctor.server.storage.errors import LedgerError, reason
from proctor.server.storage.migrate import check_version

LISTED = 20
"""The default number of listed sessions."""

WIDE = 200
"""The width of tables, in columns, if the output is not a terminal."""


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the subcommands to a parser.

    Args:
        parser: the parser of the command.
        config: the help of `--config`.
    """
    commands = parser.add_subparsers(dest="sessions_command", required=True)
    listing = commands.add_parser("list", help="list the sessions that were used last")
    listing.add_argument("--key", help="name of the key whose sessions to list (default: all)")
    listing.add_argument(
        "--count", type=_positive, default=LISTED, help=f"number of sessions (default: {LISTED})"
    )
    show = commands.add_parser("show", help="show what a session has used, by tier")
    show.add_argument("id", help="ID of the session")
    show.add_argument("--key", default="", help="name of its key (default: no key)")
    for command in commands.choices.values():
        command.add_argument("--format", choices=("table", "json"), default="table")
        command.add_argument("--url", help="URL of the database (default: the setting ledger.url)")
        command.add_argument("--config", type=Path, help=config)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text[:64]}' is not a positive integer")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Run the selected subcommand, and return the exit status.

    Raises:
        ConfigError: if a setting is invalid, or there is no ledger.
    """
    settings = load_settings({}, options.config)
    url = options.url or settings.ledger.url.get_secret_value()
    if not url:
        raise ConfigError("ledger.url: Must be set, since sessions are stored in the ledger")
    try:
        reports = asyncio.run(_read(url, options))
    except (LedgerError, LookupError, OSError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"proctor: The ledger cannot be used: {reason(error)}", file=sys.stderr)
        return 1
    _print(reports, settings, options)
    return 0


async def _read(url: str, options: argparse.Namespace) -> list[SessionReport]:
    """Return the reports of the selected sessions.

    Raises:
        LedgerError: if there is no ledger, or its tables have another version.
        LookupError: if there is no such session.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise LedgerError(f"There is no ledger at {file}.")
    database = open_database(url, reads_only=True)
    try:
        await check_version(database)
        reader = SessionReader(database)
        if options.sessions_command == "list":
            return await reader.recent(options.count, options.key)
        report = await reader.report(options.key, options.id)
    finally:
        await database.dispose()
    if report is None:
        owner = f"of the key '{options.key}'" if options.key else "without a key"
        raise LookupError(f"No session '{options.id}' {owner}.")
    return [report]


def _print(
    reports: Sequence[SessionReport], settings: Settings, options: argparse.Namespace
) -> None:
    if options.format == "json":
        now = datetime.now(UTC)
        cards: list[SessionCard] = [to_card(each, settings.currency, now) for each in reports]
        print(json.dumps(cards if options.sessions_command == "list" else cards[0], indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    if options.sessions_command == "list":
        console.print(_listing(reports, settings.currency))
        return
    (report,) = reports
    console.print(_by_tier(report, settings.currency))
    for line in _remaining(report):
        console.print(line)


def _listing(reports: Sequence[SessionReport], currency: str) -> Table:
    table = _table("session", "key", "last request")
    for column in ("requests", "thinking", "thinking left", "tokens", currency, f"{currency} left"):
        table.add_column(column, justify="right")
    for report in reports:
        used, amounts = report.used, report.amounts
        left = {
            limit: format_amount(limit, amounts[limit].left) if limit in amounts else "-"
            for limit in (Limit.THINKING, Limit.COST)
        }
        table.add_row(
            report.id,
            report.key or "-",
            "-" if report.last is None else f"{report.last:%Y-%m-%d %H:%M}",
            f"{used.requests:,}",
            f"{used.thinking_tokens:,}",
            left[Limit.THINKING],
            f"{used.tokens:,}",
            format_amount(Limit.COST, used.nanos),
            left[Limit.COST],
        )
    return table


def _by_tier(report: SessionReport, currency: str) -> Table:
    table = _table("tier")
    columns = ("requests", "prompt tokens", "thinking tokens", "answer tokens")
    for column in (*columns, "prompt", "thinking", "answer", currency):
        table.add_column(column, justify="right")
    for totals in report.tiers:
        prompt = totals.nanos - totals.thinking_nanos - totals.answer_nanos
        costs = (prompt, totals.thinking_nanos, totals.answer_nanos, totals.nanos)
        table.add_row(
            totals.tier,
            f"{totals.requests:,}",
            f"{totals.prompt_tokens:,}",
            f"{totals.thinking_tokens:,}",
            f"{totals.answer_tokens:,}",
            *(f"{nanos * NANO:.6f}" for nanos in costs),
        )
    return table


def _remaining(report: SessionReport) -> list[str]:
    """Return a line for each limit."""
    lines = [
        f"{limit.value.replace('_', ' ')}: {format_amount(limit, amount.left)} of "
        f"{format_amount(limit, amount.limit)} left, {format_amount(limit, amount.reserved)} "
        "reserved"
        for limit, amount in report.amounts.items()
    ]
    seconds = report.seconds_left(datetime.now(UTC))
    if seconds is not None:
        lines.append(f"seconds: {seconds:.0f} of {report.state.limits.max_seconds:g} left")
    return lines


def _table(*columns: str) -> Table:
    table = Table(box=None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
