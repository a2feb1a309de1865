"""Reads calibration rows from JSON Lines, and formats the proposals as TOML."""

import json
from collections.abc import Sequence
from pathlib import Path

from proctor.router.calibration import Proposal, Row
from proctor.router.decision import Costs
from proctor.router.prediction import LEVELS


class LedgerError(ValueError):
    """A file of ledger rows cannot be read; the message names the line."""


def read_rows(path: Path) -> list[Row]:
    """Read rows of `{"tier", "tokens", "end_reason", "max_tokens"}`, one JSON object per line.

    Raises:
        LedgerError: if the file cannot be read or a line is invalid.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LedgerError(f"{path}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            max_tokens = fields.get("max_tokens")
            rows.append(
                Row(
                    tier=str(fields["tier"]),
                    tokens=int(fields["tokens"]),
                    end_reason=str(fields["end_reason"]),
                    max_tokens=None if max_tokens is None else int(max_tokens),
                )
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"{path}, line {number}: {error!r}") from error
    if not rows:
        raise LedgerError(f"{path} has no rows: pass a ledger of answered requests")
    return rows


def snippet(proposals: Sequence[Proposal], costs: Costs | None) -> str:
    """Format the proposals as a fragment of `proctor.toml`, with the statistics as comments."""
    lines = ["# [[tiers]] replaces the whole list: copy the other keys of your tiers.", ""]
    for proposal in proposals:
        lines += [
            f"# {proposal.tier}: {proposal.rows} rows; {proposal.natural:.1%} ended naturally, "
            f"{proposal.capped:.1%} reached the cap, {proposal.looped:.1%} looped",
            *_tier(proposal),
            "",
        ]
    if costs is None:
        lines.append(
            "# No costs proposed: a level has no traffic, or high uses no more tokens than none."
        )
    else:
        lines += ["# Cost of sending a prompt of each level to none, low, medium, high."]
        lines += ["[router.costs]"]
        lines += [
            f"{level} = {json.dumps(list(row))}"
            for level, row in zip(LEVELS, costs.rows, strict=True)
        ]
    return "\n".join(lines) + "\n"


def _tier(proposal: Proposal) -> list[str]:
    if proposal.cap is None:
        return ["# Too few natural ends to propose a cap."]
    lines = []
    if proposal.beyond:
        lines.append("# The quantile lies beyond every cap observed; this is the next one to try.")
    if proposal.saving is not None:
        change = "saves" if proposal.saving >= 0 else "costs"
        lines.append(
            f"# Expected: {change} {abs(proposal.saving):.1%} of this tier's thinking tokens."
        )
    # A JSON string is also a valid TOML string.
    name = json.dumps(proposal.tier)
    return [*lines, "[[tiers]]", f"name = {name}", f"max_tokens = {proposal.cap}"]
