"""Labelled prompts, one JSON object to a line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctor.router.conversation import Conversation, Turn
from proctor.router.prediction import LEVELS


class TrainingDataError(ValueError):
    """A file that cannot be trained on; the message names the line."""


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled prompt.

    Attributes:
        conversation: the prompt and the turns before it.
        level: index of its level in `LEVELS`.
        source: where it comes from; sources are held out whole.
        group: records that belong together and are held out together.
        border: whether a level beside it would be as right.
        by_hand: whether a person read and labelled it.
    """

    conversation: Conversation
    level: int
    source: str
    group: str
    border: bool
    by_hand: bool


def read_records(path: Path) -> list[Record]:
    """The file's records, in order.

    Raises:
        TrainingDataError: if the file cannot be read, or a line lacks a prompt
            or a tier.
    """
    try:
        # Not splitlines: a prompt may hold a line separator of Unicode's.
        lines = path.read_text("utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"{path}: {error}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(json.loads(line), number))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TrainingDataError(f"{path}, line {number}: {error!r}") from error
    missing = set(range(len(LEVELS))) - {record.level for record in records}
    if missing:
        names = ", ".join(LEVELS[at] for at in sorted(missing))
        raise TrainingDataError(f"{path} has no record of: {names}")
    return records


def _record(found: Mapping[str, Any], number: int) -> Record:
    meta: Mapping[str, Any] = found.get("meta") or {}
    turns = [Turn(turn["role"], turn["content"]) for turn in meta.get("context") or ()]
    return Record(
        conversation=Conversation((*turns, Turn("user", str(found["prompt"])))),
        level=LEVELS.index(found["tier"]),
        source=str(found.get("source", "")),
        group=str(meta.get("group") or number),
        border=bool(meta.get("border")),
        by_hand=meta.get("labelled") == "hand",
    )
