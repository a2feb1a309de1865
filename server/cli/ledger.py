"""`proctor ledger …`: reports, and the database's tables."""

import argparse
import asyncio
import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from proctor.router.calibration import Row as Calibrated
from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.accounting.ledger.report import NUMBERS, GroupBy, Report, ReportLine
from proctor.server.accounting.ledger.service import open_store, prepare
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.settings import ConfigError, Settings, load_settings
from proctor.server.storage.database import sqlite_file
from proctor.server.storage.errors import LedgerError
from proctor.server.storage.migrate import check_version

WIDE = 250
"""Columns of text where no terminal sets a limit."""

DIGITS = 3
"""Significant ones, of numbers in a table; CSV and JSON have them all."""


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the commands to a parser of their own.

    Args:
        parser: takes them.
        config: what `--config` is about.
    """
    commands = parser.add_subparsers(dest="ledger_command", required=True)
    told = commands.add_parser("report", help="tell what was spent, by day, key, tier or model")
    told.add_argument(
        "--by",
        type=_groups,
        default=(GroupBy.DAY, GroupBy.TIER),
        metavar="GROUPS",
        help=f"some of {', '.join(GroupBy)}, by comma (default: day,tier)",
    )
    told.add_argument("--since", type=date.fromisoformat, help="first day, like 2026-01-31")
    told.add_argument("--until", type=date.fromisoformat, help="last day")
    told.add_argument("--against", help="the tier that savings compare with (default: the last)")
    told.add_argument("--format", choices=("table", "csv", "json"), default="table")
    migrate = commands.add_parser("migrate", help="bring the tables to this version's")
    for command in (told, migrate):
        command.add_argument("--url", help="the database (default: the setting ledger.url)")
        command.add_argument("--config", type=Path, help=config)


def run(options: argparse.Namespace) -> int:
    """Run the command that was chosen; the exit status.

    Raises:
        BadSettings: if there can be no ledger where it is said to be.
    """
    settings = load_settings({}, options.config)
    url = options.url or settings.ledger.url.get_secret_value()
    if not url:
        raise ConfigError("ledger.url: it is empty, so that no ledger is kept")
    try:
        if options.ledger_command == "migrate":
            asyncio.run(prepare(url))
        else:
            print(_report(url, settings, options), end="")
    except (LedgerError, OSError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    return 0


def read_rows(
    url: str,
    take: Callable[[LedgerRecord], None],
    since: date | None = None,
    until: date | None = None,
) -> None:
    """Hand over the rows of some days, one by one.

    Raises:
        BadSettings: if there can be no ledger there.
        LedgerError: if there is none, or it is of another version.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise LedgerError(f"there is no ledger at {file}")
    begin = None if since is None else datetime.combine(since, time(), UTC)
    end = None if until is None else datetime.combine(until + timedelta(days=1), time(), UTC)

    async def read() -> None:
        store = open_store(url, reads_only=True)
        try:
            await check_version(store.engine)
            async for row in store.rows(begin, end):
                take(row)
        finally:
            await store.aclose()

    asyncio.run(read())


def calibration_rows(url: str) -> list[Calibrated]:
    """What the router is calibrated from: answers of one choice, given in a tier.

    Raises:
        BadSettings: if there can be no ledger there.
        LedgerError: if there is none, or it is of another version.
    """
    found: list[Calibrated] = []

    def take(row: LedgerRecord) -> None:
        if row.choices == 1 and row.tier != CUSTOM:
            found.append(Calibrated(row.tier, row.thinking_tokens, row.end_reason, row.max_tokens))

    read_rows(url, take)
    return found


def _groups(text: str) -> tuple[GroupBy, ...]:
    try:
        return tuple(GroupBy(name) for name in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not some of {', '.join(GroupBy)}") from None


def _report(url: str, settings: Settings, options: argparse.Namespace) -> str:
    report = Report(options.by, options.against or settings.tiers[-1].name)
    read_rows(url, report.add, options.since, options.until)
    lines = report.lines()
    match options.format:
        case "json":
            return json.dumps([_plain(line, options.by) for line in lines], indent=1) + "\n"
        case "csv":
            return _csv(lines, options.by)
        case _:
            return _table(lines, options.by)


def _plain(line: ReportLine, by: Sequence[GroupBy]) -> dict[str, Any]:
    """A line under the names of its columns; money as text, so that it stays exact."""
    numbers = {name: getattr(line, name) for name in NUMBERS}
    exact = {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in numbers.items()
    }
    return dict(zip(by, line.group, strict=True)) | exact


def _csv(lines: Sequence[ReportLine], by: Sequence[GroupBy]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*by, *NUMBERS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(line, by) for line in lines)
    return text.getvalue()


def _table(lines: Sequence[ReportLine], by: Sequence[GroupBy]) -> str:
    table = Table(box=None)
    for group in by:
        table.add_column(group, overflow="fold")
    for name in NUMBERS:
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for line in lines:
        table.add_row(*line.group, *(_shown(getattr(line, name)) for name in NUMBERS))
    text = io.StringIO()
    console = Console(file=text, width=None if sys.stdout.isatty() else WIDE)
    console.print(table)
    return "".join(f"{row.rstrip()}\n" for row in text.getvalue().splitlines())


def _shown(value: Any) -> str:
    match value:
        case None:
            return "-"
        case Decimal():
            return f"{Context(DIGITS).plus(value):f}"
        case float():
            return f"{value:.{DIGITS}g}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
