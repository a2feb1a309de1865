"""Precision and recall of the filters of `proctor curate` on the planted dirt."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.curation.dirt import DIRT, Label
from bench.curation.files import SEEN, UNSEEN, read_pool
from proctor.curation.options import Context
from proctor.curation.registry import STAGES
from proctor.curation.rows import Row
from proctor.curation.stages.base import Dropped, Stage
from proctor.curation.tokens import Words

OPTIONS: Mapping[str, Mapping[str, object]] = {
    "quality": {},
    "deduplication": {},
    "decontamination": {"against": (Path(SEEN), Path(UNSEEN))},
    "reasoning": {},
}
"""The stages that need no server, in their order, with the options that are not the default."""

REASONS: Mapping[str, tuple[str, ...]] = {
    "exact duplicate": ("exact duplicate",),
    "near duplicate": ("near duplicate",),
    "truncated trace": ("truncated trace",),
    "loop": ("loop", "repetition"),
    "wrong answer": ("wrong answer",),
    "answer not of the trace": ("answer does not follow",),
    "encoding damage": ("encoding damage",),
    "refusal": ("refusal",),
    "image reference": ("image or figure",),
    "answer given away": ("answer given away",),
    "contamination": ("in an evaluation", "in an evaluation, as normalized"),
}
"""The reasons of the stages that mean each kind of dirt."""

NEEDS_SERVER = ("too easy",)
"""What only the difficulty finds, which is measured on a served model."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that a filter drops."""

    id: str
    stage: str
    reason: str
    detail: str


def run_filters(folder: Path) -> tuple[list[Row], list[Label], list[Finding]]:
    """Run the stages over the pool of a folder, each over the rows that those before it keep."""
    rows, labels = read_pool(folder)
    stages = build_stages(folder)
    findings = [found for row in rows if (found := _judge(row, stages))]
    return rows, labels, findings


def build_stages(folder: Path) -> list[Stage]:
    """Create the stages as a recipe in the folder of the pool would."""
    context = Context(folder=folder, tokens=Words(), seed=0)
    return [STAGES[name](**options).build(context) for name, options in OPTIONS.items()]


def _judge(row: Row, stages: Sequence[Stage]) -> Finding | None:
    for stage in stages:
        dropped: Dropped | None = stage.judge(row)
        if dropped:
            return Finding(row.id, stage.name, dropped.reason, dropped.detail)
    return None


def table(
    rows: Sequence[Row], labels: Sequence[Label], findings: Sequence[Finding]
) -> Iterator[str]:
    """Yield the lines of a Markdown table, and a sentence on the clean rows.

    Precision is the share of rows dropped for a reason that have this dirt, and any dirt; recall
    that of rows with this dirt that are dropped for its reason, and for any.
    """
    dirt = {label.id: label.dirt for label in labels}
    dropped = {finding.id: finding for finding in findings}
    planted = Counter(dirt.values())
    yield "| planted | rows | dropped for it | dropped | precision | rightly dropped |"
    yield "|---|--:|--:|--:|--:|--:|"
    for name in DIRT:
        any_reason = sum(dirt.get(each) == name for each in dropped)
        if name in NEEDS_SERVER:
            dropped_share = _share(any_reason, planted[name])
            yield f"| {name} | {planted[name]} | not run | {dropped_share} | | |"
            continue
        found = [each.id for each in findings if each.reason in REASONS[name]]
        right = sum(dirt.get(each) == name for each in found)
        dirty = sum(each in dirt for each in found)
        yield (
            f"| {name} | {planted[name]} | {_share(right, planted[name])} "
            f"| {_share(any_reason, planted[name])} | {_share(right, len(found))} "
            f"| {_share(dirty, len(found))} |"
        )
    clean = len(rows) - len(labels)
    lost = Counter(f"{each.stage}: {each.reason}" for each in findings if each.id not in dirt)
    reasons = ", ".join(f"{count} {reason}" for reason, count in lost.most_common()) or "none"
    yield ""
    yield f"Of {clean} clean rows {lost.total()} are dropped ({reasons})."


def mistakes(
    dirt: str, rows: Sequence[Row], labels: Sequence[Label], findings: Sequence[Finding]
) -> Iterator[str]:
    """Yield the rows with this dirt that are kept; for `clean` the clean ones that are dropped."""
    known = {label.id: label.dirt for label in labels}
    dropped = {finding.id: finding for finding in findings}
    for row in rows:
        found = dropped.get(row.id)
        if dirt == "clean" and row.id not in known and found:
            yield f"{row.id} {found.reason} ({found.detail}): {row.question!r}"
        elif known.get(row.id) == dirt and not found:
            yield f"{row.id}: {row.question!r} {row.trace!r} {row.answer!r}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
