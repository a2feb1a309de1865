"""Reads rows for calibration from JSON lines, and writes what follows from them as settings."""

import json
from collections.abc import Sequence
from pathlib import Path

from proctor.router.calibration import Proposal, Row
from proctor.router.decision import Costs
from proctor.router.prediction import LEVELS


class LedgerError(ValueError):
    """A file that is no ledger; the message names the line."""


def read_rows(path: Path) -> list[Row]:
    """Rows of `{"tier", "tokens", "end_reason", "max_tokens"}`, one JSON object to a line.

    Raises:
        LedgerError: if the file cannot be read or a line lacks a field.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            most = found.get("max_tokens")
            rows.append(
                Row(
                    tier=str(found["tier"]),
                    tokens=int(found["tokens"]),
                    end_reason=str(found["end_reason"]),
                    max_tokens=None if most is None else int(most),
                )
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"{path}, line {number}: {error!r}") from error
    return rows


def snippet(proposals: Sequence[Proposal], costs: Costs | None) -> str:
    """The proposals as a piece of `proctor.toml`, with the reasons as comments."""
    lines = ["# [[tiers]] replaces the whole list: keep the other keys of yours.", ""]
    for found in proposals:
        lines += [
            f"# {found.tier}: {found.rows} rows; {found.natural:.1%} ended by themselves, "
            f"{found.capped:.1%} ran into the cap, {found.looped:.1%} looped",
            *_tier(found),
            "",
        ]
    if costs is None:
        lines.append("# No costs proposed: not every level has traffic of its own, or more of it.")
    else:
        lines += ["# What it costs to send a prompt of a level to none, low, medium, high."]
        lines += ["[router.costs]"]
        lines += [
            f"{level} = {json.dumps(list(row))}"
            for level, row in zip(LEVELS, costs.rows, strict=True)
        ]
    return "\n".join(lines) + "\n"


def _tier(found: Proposal) -> list[str]:
    if found.cap is None:
        return ["# Too few natural ends to propose a cap."]
    lines = []
    if found.beyond:
        lines.append(
            "# The quantile lies beyond every cap that was tried; this is the next to try."
        )
    if found.saving is not None:
        change = "saves" if found.saving >= 0 else "costs"
        lines.append(
            f"# Expected: {change} {abs(found.saving):.1%} of this tier's thinking tokens."
        )
    # A JSON string is a TOML string too.
    return [*lines, "[[tiers]]", f"name = {json.dumps(found.tier)}", f"max_tokens = {found.cap}"]
