"""Labelled prompts in JSON Lines format."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctor.router.conversation import Conversation, Turn
from proctor.router.prediction import LEVELS


class TrainingDataError(ValueError):
    """A file of labelled prompts is invalid; the message names the line."""


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled prompt.

    Attributes:
        conversation: the prompt and the turns before it.
        level: the index of its level in `LEVELS`.
        source: its data source; sources are held out as a whole.
        group: an identifier shared by related records, which are held out together.
        border: whether an adjacent level would be equally correct.
        by_hand: whether it was labelled by hand.
    """

    conversation: Conversation
    level: int
    source: str
    group: str
    border: bool
    by_hand: bool


def read_records(path: Path) -> list[Record]:
    """Read the records of a file, in order.

    Raises:
        TrainingDataError: if the file cannot be read, a line lacks a prompt or a
            tier, or a level has no record.
    """
    try:
        # Not splitlines(): a prompt may contain a Unicode line separator.
        lines = path.read_text("utf-8").rstrip("\n").split("\n")
    except OSError as error:
        raise TrainingDataError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TrainingDataError(f"{path}: {error}") from error
    if lines == [""]:
        raise TrainingDataError(f"{path} is empty: it must have labelled prompts")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(json.loads(line), number))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TrainingDataError(f"{path}, line {number}: {error!r}") from error
    missing = set(range(len(LEVELS))) - {record.level for record in records}
    if missing:
        names = ", ".join(LEVELS[index] for index in sorted(missing))
        raise TrainingDataError(f"{path} must have records of all levels. Missing: {names}")
    return records


def _record(fields: Mapping[str, Any], number: int) -> Record:
    meta: Mapping[str, Any] = fields.get("meta") or {}
    turns = [Turn(turn["role"], turn["content"]) for turn in meta.get("context") or ()]
    return Record(
        conversation=Conversation((*turns, Turn("user", str(fields["prompt"])))),
        level=LEVELS.index(fields["tier"]),
        source=str(fields.get("source", "")),
        group=str(meta.get("group") or number),
        border=bool(meta.get("border")),
        by_hand=meta.get("labelled") == "hand",
    )
