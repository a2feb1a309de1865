"""The report of an audit: what a file holds, and what to do about it."""

from collections.abc import Iterator

from proctor.curation.audit.measure import OWN_FIELD, TIERS, Audit, Finding
from proctor.evaluation.report.formatting import Section, Table

FEW_TRACES = 0.95
"""The share of rows with a trace below which a model also learns to answer at once."""


def sections(
    measured: Audit, markers: tuple[str, str] | None, *, model: bool, against: bool
) -> list[Section]:
    """Return the sections of a report.

    Args:
        measured: what the file holds.
        markers: the markers that the server enforces with the model; None if they are not known.
        model: whether a model is given.
        against: whether evaluations are given.
    """
    report = [_traces(measured), _shapes(measured)]
    if measured.with_trace:
        report += [_markers(measured, markers, model), _lengths(measured)]
        report += [_finding(measured, "Traces without an answer", measured.unanswered, UNANSWERED)]
        report += [_finding(measured, "Loops", measured.loops, LOOPS)]
    report.append(_contamination(measured, against=against))
    return report


UNANSWERED = (
    "They were cut off, and teach a model not to stop: drop them by `proctor curate` with the "
    "stage 'quality', or generate them again with more tokens."
)
LOOPS = (
    "The server's loop guard would end these traces; a model that learns them loops more often: "
    "drop them with the stage 'reasoning'."
)
CONTAMINATED = (
    "Questions of an evaluation are in the file: its scores would measure memory. Drop them with "
    "the stage 'decontamination'."
)


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _traces(measured: Audit) -> Section:
    without = measured.rows - measured.with_trace
    rows = [
        ("with a chain of thought", measured.with_trace),
        ("without", without),
        *((f"unreadable: {reason}", count) for reason, count in measured.unreadable.most_common()),
    ]
    total = measured.rows + measured.unreadable.total()
    table = Table(
        ("rows", "count", "share"),
        tuple((name, f"{count:,}", _share(count, total)) for name, count in rows),
    )
    return Section("Chains of thought", table, tuple(_trace_advice(measured)))


def _trace_advice(measured: Audit) -> Iterator[str]:
    if not measured.with_trace:
        yield (
            "No row shows how to think: a model trained on this file cannot use the tokens that a "
            "thinking budget gives it. Have a reasoning model answer the questions, and store "
            "`reasoning_content` beside `content`."
        )
    elif measured.with_trace < FEW_TRACES * measured.rows:
        yield (
            "Some rows have none: a model learns from them to answer at once, also where a budget "
            "forces it to think. Drop them with the stage 'quality', or keep them for a model "
            "that is to do both, with empty thinking written out."
        )
    else:
        yield "Nearly all rows show how to think."
    if measured.unreadable:
        yield (
            "Unreadable rows are left out by `proctor curate`; if they have a shape of their own, "
            "describe it by `fields` in the recipe's [[inputs]]."
        )


def _shapes(measured: Audit) -> Section:
    rows = tuple(
        (name, f"{count:,}", _share(count, measured.rows))
        for name, count in measured.shapes.most_common()
    )
    return Section("Shapes", Table(("shape", "rows", "share"), rows))


def _markers(measured: Audit, own: tuple[str, str] | None, model: bool) -> Section:
    rows = []
    for found, count in measured.markers.most_common():
        name = found if isinstance(found, str) else " … ".join(found)
        verdict = "" if not own else "yes" if found == own else "no"
        rows.append((name, f"{count:,}", _share(count, measured.with_trace), verdict))
    columns = ("traces are in", "rows", "share", "enforced by this server")
    return Section("Markers", Table(columns, tuple(rows)), (_marker_advice(measured, own, model),))


def _marker_advice(measured: Audit, own: tuple[str, str] | None, model: bool) -> str:
    if not model:
        return "Pass --model to see whether these are the markers that the server enforces."
    if own is None:
        return (
            "The model's chat template has no known markers: serve it with --thinking-start and "
            "--thinking-end, and pass the same ones here."
        )
    others = measured.with_trace - measured.markers[own]
    if not others:
        return f"All traces are in the markers that the server enforces: {' … '.join(own)}."
    form = '`proctor curate` with form = "template" writes them in the model\'s own markers'
    if others == measured.markers[OWN_FIELD]:
        return f"The traces are no text yet: {form}, {' … '.join(own)}."
    return (
        f"{others:,} traces are not in {' … '.join(own)}: a model trained on them as they are "
        f"thinks in markers that no budget sees. {form}."
    )


def _lengths(measured: Audit) -> Section:
    ordered = sorted(measured.lengths)
    counts = measured.by_tier()
    rows = tuple(
        (
            name if name == "longer" else f"{name} (up to {TIERS[name]:,})",
            f"{count:,}",
            _share(count, measured.with_trace),
        )
        for name, count in counts.items()
    )
    sentences = [
        f"Median {ordered[len(ordered) // 2]:,}, longest {ordered[-1]:,} {measured.unit}; train "
        "with a block size above the longest row: cut traces make models think longer and be "
        "right less often."
    ]
    if measured.unit != "tokens":
        sentences.append("These are words; pass --model to count tokens, which are more.")
    filled = [name for name, count in counts.items() if count and name != "longer"]
    if len(filled) == 1 and not counts["longer"]:
        sentences.append(
            f"All traces fit the tier '{filled[0]}': larger tiers would give the model tokens that "
            "it has not learned to use. Lower the caps, or add longer traces."
        )
    if counts["longer"]:
        sentences.append("Longer traces are cut by every default tier: raise `max`, or drop them.")
    return Section(
        "Lengths against the default tiers",
        Table(("tier", "traces", "share"), rows),
        tuple(sentences),
    )


def _finding(measured: Audit, title: str, found: Finding, advice: str) -> Section:
    sentences = (advice, *found.examples) if found.count else ("There are none.",)
    cells = (f"{found.count:,}", _share(found.count, measured.rows))
    return Section(title, Table(("", "rows", "share"), (("found", *cells),)), sentences)


def _contamination(measured: Audit, *, against: bool) -> Section:
    if not against:
        text = "Not checked: pass the files that you measure the model with by --against."
        return Section("Contamination", None, (text,))
    return _finding(measured, "Contamination", measured.contaminated, CONTAMINATED)
