"""Measures a file of training rows, one row after the other."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from proctor.curation.readers.files import Record, Unreadable
from proctor.curation.readers.shapes import Parsed, parse
from proctor.curation.text.ngrams import EvaluationIndex
from proctor.curation.text.traces import loop_end
from proctor.curation.tokens import Tokens

TIERS: Mapping[str, int] = MappingProxyType(
    {"low": 512, "medium": 2048, "high": 8192, "max": 32768}
)
"""The caps of the server's default tiers, in tokens."""

EXAMPLES = 3
OWN_FIELD = "a field of its own"


@dataclass(slots=True)
class Finding:
    """Rows with a fault.

    Attributes:
        count: how many there are.
        examples: the positions of the first ones, from 1, and what shows the fault.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, position: int, detail: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"row {position}: {detail}")


@dataclass(slots=True)
class Audit:
    """What a file holds.

    Attributes:
        unit: `tokens` or `words`: the unit of `lengths`.
        rows: the number of rows that can be read.
        unreadable: the number of others, by reason.
        shapes: the number of rows of each shape.
        lengths: the length of each trace.
        markers: the number of traces by what encloses them: a pair of markers, or
            `OWN_FIELD`.
        unanswered: traces without an answer after them.
        loops: traces in which the server's loop guard fires.
        contaminated: questions of an evaluation.
    """

    unit: str
    rows: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    lengths: "array[int]" = field(default_factory=lambda: array("L"))
    markers: Counter[tuple[str, str] | str] = field(default_factory=Counter)
    unanswered: Finding = field(default_factory=Finding)
    loops: Finding = field(default_factory=Finding)
    contaminated: Finding = field(default_factory=Finding)

    @property
    def with_trace(self) -> int:
        """The number of rows that have a chain of thought."""
        return len(self.lengths)

    def by_tier(self) -> dict[str, int]:
        """Return the number of traces by the smallest default tier whose cap they fit."""
        counts = dict.fromkeys((*TIERS, "longer"), 0)
        for length in self.lengths:
            counts[next((name for name, cap in TIERS.items() if length <= cap), "longer")] += 1
        return counts


def audit(
    records: Iterable[Record | Unreadable], tokens: Tokens, index: EvaluationIndex | None
) -> Audit:
    """Measure records.

    Args:
        records: the records of a file.
        tokens: what traces are measured in, and what loops are looked for in.
        index: the questions of evaluations, if there are any.
    """
    measured = Audit(tokens.unit)
    for position, record in enumerate(records, 1):
        parsed = record if isinstance(record, Unreadable) else parse(record)
        if isinstance(parsed, Unreadable):
            measured.unreadable[parsed.reason] += 1
        else:
            _add(measured, position, parsed, tokens, index)
    return measured


def _add(
    measured: Audit, position: int, row: Parsed, tokens: Tokens, index: EvaluationIndex | None
) -> None:
    measured.rows += 1
    measured.shapes[row.shape] += 1
    if index is not None and (found := index.find(row.question)):
        measured.contaminated.add(position, f"{found[1].source}: {found[1].text}")
    if not row.trace:
        return
    ids, weights = tokens.encode(row.trace)
    measured.lengths.append(tokens.count(row.trace))
    measured.markers[row.markers or OWN_FIELD] += 1
    if not row.answer:
        measured.unanswered.add(position, f"…{row.trace[-60:]}")
    if end := loop_end(ids, weights):
        measured.loops.add(position, f"after {end} {tokens.unit}: …{row.trace[-60:]}")
