"""The steps of a run, each stored when it is complete, so that an interrupted run continues.

A step's files are named by a key: the digest of all that its result depends on, the key of the
step before it included. A step whose summary exists is not run again; one that was interrupted
has none, and is run from its start.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from proctor.curation.stages.base import Dropped
from proctor.curation.storage import complete_file, to_line, write_json

EXAMPLES = 3
"""Rows of each reason that a report shows."""


@dataclass(slots=True)
class Summary:
    """The counts of a step.

    Attributes:
        name: the step's name.
        taken: the number of rows that it was given.
        reasons: how many of them it dropped, by reason.
        examples: the ids and details of the first rows that it dropped, by reason.
    """

    name: str
    taken: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """The number of rows that it dropped."""
        return self.reasons.total()

    @property
    def kept(self) -> int:
        """The number of rows that it kept."""
        return self.taken - self.dropped

    def count(self, row_id: str, verdict: Dropped | None) -> None:
        """Count a row."""
        self.taken += 1
        if verdict is None:
            return
        self.reasons[verdict.reason] += 1
        examples = self.examples.setdefault(verdict.reason, [])
        if len(examples) < EXAMPLES:
            examples.append((row_id, verdict.detail))

    def counts(self) -> dict[str, Any]:
        """Return the counts, with the most frequent reason first."""
        reasons = dict(sorted(self.reasons.items(), key=lambda item: (-item[1], item[0])))
        return {"taken": self.taken, "kept": self.kept, "dropped": self.dropped, "reasons": reasons}


class Step:
    """The files of a step."""

    def __init__(self, folder: Path, index: int, name: str, key: str) -> None:
        """Name the files.

        Args:
            folder: the folder of all steps.
            index: the step's position in the run.
            name: its name.
            key: the digest of what its result depends on.
        """
        self.name = name
        self.key = key
        self._stem = folder / f"{index:02d}-{name}-{key[:16]}"

    @property
    def is_complete(self) -> bool:
        """Whether the step was run to its end."""
        return self.file("json").exists()

    def file(self, suffix: str) -> Path:
        """Return the path of one of its files."""
        return self._stem.with_name(f"{self._stem.name}.{suffix}")

    def run(self, verdicts: Iterable[tuple[str, Dropped | None]]) -> None:
        """Store verdicts on rows, by id; the summary is written last."""
        summary = Summary(self.name)
        with complete_file(self.file("dropped.jsonl")) as file:
            for row_id, verdict in verdicts:
                summary.count(row_id, verdict)
                if verdict is not None:
                    file.write(to_line({"id": row_id, **asdict(verdict)}))
        # Not all of asdict: it cannot copy a Counter.
        stored = {name: getattr(summary, name) for name in Summary.__slots__}
        write_json(self.file("json"), stored)

    def dropped(self) -> Iterator[Mapping[str, str]]:
        """Yield the id, reason and detail of each dropped row."""
        with self.file("dropped.jsonl").open("rb") as lines:
            yield from map(orjson.loads, lines)

    def summary(self) -> Summary:
        """Return the stored counts."""
        stored = orjson.loads(self.file("json").read_bytes())
        return Summary(**stored | {"reasons": Counter(stored["reasons"])})
