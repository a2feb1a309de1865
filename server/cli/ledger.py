"""The command `proctor ledger`: reports, and migrations of the database."""

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
from proctor.server.accounting.ledger.report import VALUE_COLUMNS, GroupBy, Report, ReportLine
from proctor.server.accounting.ledger.service import open_store, prepare
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings, load_settings
from proctor.server.storage.database import sqlite_file
from proctor.server.storage.errors import LedgerError
from proctor.server.storage.migrate import check_version

WIDE = 250
"""The width of tables, in columns, if the output is not a terminal."""

DIGITS = 3
"""The number of significant digits in tables; CSV and JSON are exact."""


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the subcommands to a parser.

    Args:
        parser: the parser of the command.
        config: the help of `--config`.
    """
    commands = parser.add_subparsers(dest="ledger_command", required=True)
    report = commands.add_parser(
        "report", help="report the spending by day, key, tier, model and session"
    )
    report.add_argument(
        "--by",
        type=_groups,
        default=(GroupBy.DAY, GroupBy.TIER),
        metavar="GROUPS",
        help=f"comma-separated list of {', '.join(GroupBy)} (default: day,tier)",
    )
    report.add_argument("--since", type=_day, help="first day, like 2026-01-31 (default: all)")
    report.add_argument("--until", type=_day, help="last day, like 2026-01-31 (default: all)")
    report.add_argument(
        "--against", help="tier to compare with for the savings (default: the last tier)"
    )
    report.add_argument("--format", choices=("table", "csv", "json"), default="table")
    migrate = commands.add_parser("migrate", help="migrate the tables to the newest version")
    for command in (report, migrate):
        command.add_argument("--url", help="URL of the database (default: the setting ledger.url)")
        command.add_argument("--config", type=Path, help=config)


def run(options: argparse.Namespace) -> int:
    """Run the selected subcommand, and return the exit status.

    Raises:
        ConfigError: if a setting is invalid, or there is no ledger.
    """
    settings = load_settings({}, options.config)
    url = options.url or settings.ledger.url.get_secret_value()
    if not url:
        raise ConfigError("ledger.url: Must be set, since an empty URL disables the ledger")
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
    callback: Callable[[LedgerRecord], None],
    since: date | None = None,
    until: date | None = None,
) -> None:
    """Pass the rows of a range of days to a callback, one by one.

    Args:
        url: the URL of the database.
        callback: called with each row.
        since: the first day; None for all from the beginning.
        until: the last day; None for all to the end.

    Raises:
        ConfigError: if the URL is invalid.
        LedgerError: if there is no ledger, or its tables have another version.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise LedgerError(f"There is no ledger at {file}.")
    begin = None if since is None else datetime.combine(since, time(), UTC)
    end = None if until is None else datetime.combine(until + timedelta(days=1), time(), UTC)

    async def read() -> None:
        store = open_store(url, reads_only=True)
        try:
            await check_version(store.engine)
            async for row in store.rows(begin, end):
                callback(row)
        finally:
            await store.aclose()

    asyncio.run(read())


def calibration_rows(url: str) -> list[Calibrated]:
    """Return the rows to calibrate the router with: responses with one choice and a tier.

    Raises:
        ConfigError: if the URL is invalid.
        LedgerError: if there is no ledger, or its tables have another version.
    """
    rows: list[Calibrated] = []

    def add(row: LedgerRecord) -> None:
        if row.choices == 1 and row.tier != CUSTOM:
            rows.append(Calibrated(row.tier, row.thinking_tokens, row.end_reason, row.max_tokens))

    read_rows(url, add)
    return rows


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        message = f"'{text[:64]}' is not a day, like 2026-01-31"
        raise argparse.ArgumentTypeError(message) from None


def _groups(text: str) -> tuple[GroupBy, ...]:
    try:
        return tuple(GroupBy(name) for name in text.split(","))
    except ValueError:
        message = f"'{text}' is not a comma-separated list of {', '.join(GroupBy)}"
        raise argparse.ArgumentTypeError(message) from None


def _report(url: str, settings: Settings, options: argparse.Namespace) -> str:
    if options.since and options.until and options.since > options.until:
        raise ConfigError(f"--until: {options.until} is before --since {options.since}")
    tiers = dict.fromkeys([*(tier.name for tier in settings.tiers), CUSTOM])
    report = Report(options.by, options.against or settings.tiers[-1].name)

    def add(row: LedgerRecord) -> None:
        tiers.setdefault(row.tier)  # also tiers that the settings had once
        report.add(row)

    read_rows(url, add, options.since, options.until)
    if options.against is not None and options.against not in tiers:
        names = ", ".join(tiers)
        raise ConfigError(f"--against: Unknown tier '{options.against[:64]}'; tiers are {names}")
    lines = report.lines()
    match options.format:
        case "json":
            return json.dumps([_plain(line, options.by) for line in lines], indent=1) + "\n"
        case "csv":
            return _csv(lines, options.by)
        case _:
            return _table(lines, options.by)


def _plain(line: ReportLine, by: Sequence[GroupBy]) -> dict[str, Any]:
    """Return a line as a dictionary by column, with money as text to keep it exact."""
    numbers = {name: getattr(line, name) for name in VALUE_COLUMNS}
    exact = {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in numbers.items()
    }
    return dict(zip(by, line.group, strict=True)) | exact


def _csv(lines: Sequence[ReportLine], by: Sequence[GroupBy]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*by, *VALUE_COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(line, by) for line in lines)
    return text.getvalue()


def _table(lines: Sequence[ReportLine], by: Sequence[GroupBy]) -> str:
    table = Table(box=None)
    for group in by:
        table.add_column(group, overflow="fold")
    for name in VALUE_COLUMNS:
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for line in lines:
        table.add_row(*line.group, *(_shown(getattr(line, name)) for name in VALUE_COLUMNS))
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
