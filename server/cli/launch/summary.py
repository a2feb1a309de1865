"""Prints what a session has cost."""

import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
from rich.console import Console
from rich.table import Table

from proctor.server.cli.launch.server import TIMEOUT_SECONDS
from proctor.server.cli.launch.session import LaunchedSession

WIDE = 120
"""The width of the table in columns, if the output is not a terminal."""

DIGITS = 6
"""The decimal places of amounts."""

PARTS = ("prompt", "thinking", "answer")

Card = Mapping[str, Any]
"""A session, as `GET /v1/sessions/{id}` returns it."""


def fetch_session(url: str, key: str | None, session_id: str) -> Card | None:
    """Return a session, or None if the server has not recorded it or has ended."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        response = httpx.get(
            f"{url}/v1/sessions/{quote(session_id, safe='')}",
            headers=headers,
            timeout=TIMEOUT_SECONDS,
        )
    except httpx.HTTPError:
        return None
    card: Card | None = response.json() if response.status_code == 200 else None
    return card


def print_summary(card: Card | None, session: LaunchedSession) -> None:
    """Print what a session has used, to the standard error: the standard output is the agent's."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else WIDE, highlight=False)
    if card is None:
        console.print(f"proctor: The server has no record of the session {session.id}.")
        return
    console.print(f"proctor: {headline(card)}", soft_wrap=True)
    console.print(_table(card))


def headline(card: Card) -> str:
    """Return in one line what a session has used of its limits."""
    used, limits = card["used"], card["limits"]
    parts = [
        f"{used['requests']:,} requests",
        f"{used['thinking_tokens']:,}{_of(limits['max_thinking_tokens'])} thinking tokens",
    ]
    if used["cost"] or limits["max_cost"] is not None:
        limit = limits["max_cost"]
        of = "" if limit is None else f" of {limit:,g}"
        parts.append(f"{used['cost']:.{DIGITS}f}{of} {card['currency']}")
    return f"Session {card['id']}: {', '.join(parts)}"


def _of(limit: int | None) -> str:
    return "" if limit is None else f" of {limit:,}"


def _table(card: Card) -> Table:
    """Return the usage by tier: tokens, and costs if there are any."""
    table = Table(box=None)
    table.add_column("tier")
    priced = any(tier["cost"]["total"] for tier in card["tiers"])
    columns = ["requests", *(f"{part} tokens" for part in PARTS)]
    if priced:
        columns += [f"{part} {card['currency']}" for part in (*PARTS, "total")]
    for column in columns:
        table.add_column(column, justify="right")
    for tier in card["tiers"]:
        cells = [tier["requests"], *(tier[f"{part}_tokens"] for part in PARTS)]
        costs = [tier["cost"][part] for part in (*PARTS, "total")] if priced else []
        table.add_row(
            tier["tier"],
            *(f"{cell:,}" for cell in cells),
            *(f"{cost:.{DIGITS}f}" for cost in costs),
        )
    return table
