"""What a run says, section by section; how sections are written is not said here."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.report.findings import FORCED_ENDS, Findings, Measured, accuracy, no_surer
from proctor.evaluation.report.formatting import (
    Section,
    Table,
    count,
    money,
    percent,
    points,
    ratio,
)
from proctor.evaluation.report.recommend import recommend, to_toml
from proctor.evaluation.statistics.curve import flattens_at, performance, scaling
from proctor.evaluation.statistics.delta import STEP_TOKENS, delta, slope
from proctor.evaluation.statistics.price import (
    cost_per_correct,
    crossover,
    overtaking,
    overthinking,
)
from proctor.evaluation.statistics.samples import Run, shared_questions
from proctor.evaluation.statistics.strategies import any_right, best_of_n, majority, rejection
from proctor.evaluation.store import Kept

TITLES = {
    Kind.CAP: "Accuracy against the cap on thinking",
    Kind.CONTINUATIONS: "Accuracy against continuations",
    Kind.TIER: "Tiers",
    Kind.EFFORT: "Efforts",
}
APART = 0.1
"""Doublings by which two settings must differ for a slope between them."""

CURVES = (Kind.CAP, Kind.CONTINUATIONS)
"""Kinds whose settings are points on a curve."""


def sections(kept: Kept, findings: Findings) -> list[Section]:
    """What one run says.

    Args:
        kept: the run.
        findings: its answers, sorted.
    """
    told = [_protocol(kept, findings)]
    told += [_comparison(findings, kind) for kind in Kind if findings.of_kind(kind)]
    told.append(_ends(findings))
    if votes := _votes(kept, findings):
        told.append(votes)
    if findings.voting:
        told.append(_parallel(findings))
    if findings.find(Condition(Kind.CAP, 0)) and len(findings.of_kind(Kind.CAP)) > 1:
        told.append(_recommendation(findings))
    return told


def two_models(small: Findings, large: Findings) -> Section:
    """A small model that thinks, against a large one that does not.

    Raises:
        ValueError: if they have no question in common.
    """
    without = large.baseline(Kind.CAP)
    found = overtaking([each.run for each in small.of_kind(Kind.CAP)], without.run)
    title = "Two models"
    against = f"the large model under '{without.setting.name}', {percent(without.right)} right"
    if found is None:
        told = f"No cap makes the small model surely better than {against}."
        return Section(title, sentences=(told,))
    return Section(
        title,
        sentences=(
            f"From '{found.run.name}' on the small model is surely more often right than {against}"
            f": by {points(found.gain)} points.",
            f"A right answer costs the same where the large model's price per token is "
            f"{ratio(found.price_ratio)} times the small one's; above that the small one is "
            "cheaper. All generated tokens are counted.",
        ),
    )


def _protocol(kept: Kept, findings: Findings) -> Section:
    protocol = kept.protocol
    questions = {row.question for row in kept.rows}
    samples = sorted({len(each.rows) / len(each.run.questions) for each in findings.measured})
    spread = f"{samples[0]:g}" if len(samples) == 1 else f"{samples[0]:g} to {samples[-1]:g}"
    return Section(
        "What was asked",
        sentences=(
            f"Model {protocol.model}; task {protocol.task}, asked as {protocol.template!r}; "
            f"{len(questions):,} questions, answers: {spread} to each under each setting, "
            f"{len(kept.rows):,} in all.",
            f"Temperature {protocol.temperature:g}, top_p {protocol.top_p:g}, seed "
            f"{protocol.seed}; scorer {protocol.scorer}.",
            "Intervals are at 95%, from 10,000 bootstrap resamples of the questions, each drawn "
            "with all its answers.",
        ),
    )


def _comparison(findings: Findings, kind: Kind) -> Section:
    settings, base = findings.of_kind(kind), findings.baseline(kind)
    table = Table(
        (
            *("setting", "answers", "right", "thinking", "within", "gain", "verdict"),
            *("tokens / right", "cost / right"),
        ),
        tuple(_row(each, base) for each in settings),
    )
    told = [f"The gain is against '{base.setting.name}', in percentage points, paired by question."]
    if kind in CURVES:
        told += _curve(settings, base)
    return Section(TITLES[kind], table, tuple(told), figure=kind.value)


def _row(each: Measured, base: Measured) -> tuple[str, ...]:
    gain, verdict = "", ""
    if each is not base:
        found = delta(each.run, base.run)
        gain, verdict = points(found), found.verdict.value
    return (
        each.setting.name,
        f"{len(each.rows):,}",
        percent(each.right),
        count(each.run.mean_tokens),
        f"{each.within:.1%}",
        gain,
        verdict,
        count(cost_per_correct(each.run.mean_generated, each.run.accuracy)),
        money(each.cost_per_correct),
    )


def _curve(settings: Sequence[Measured], base: Measured) -> Iterator[str]:
    runs = [each.run for each in settings]
    yield f"Performance, the best accuracy: {performance([run.accuracy for run in runs]):.1%}."
    thinking = [(run.mean_tokens, run.accuracy) for run in runs if run.mean_tokens > 0]
    with suppress(ValueError):  # no two settings are apart
        yield (
            f"Scaling: {scaling(thinking, APART):+.1f} percentage points per doubling of the "
            "thinking tokens, the mean over the pairs of settings that think and differ by a tenth "
            "of a doubling."
        )
    if len(runs) > 1:
        yield f"Slope: {points(slope(runs))} percentage points per {STEP_TOKENS} more tokens."
        best = runs[flattens_at([run.accuracy for run in runs])]
        yield (
            f"It flattens at '{no_surer(runs).name}': no later setting is surely better. From "
            f"'{best.name}' on none is more often right at all."
        )
        first = crossover([run for run in runs if run is not base.run], base.run)
        better = "none of these settings" if first is None else f"'{first.name}', to begin with"
        yield f"Surely better than '{base.setting.name}': {better}."


def _ends(findings: Findings) -> Section:
    columns = (
        *("setting", "natural", "cap", "loop", "forced end"),
        *("continued", "forced tokens", "no answer", "overthinking"),
    )
    rows = []
    for each, before in zip(findings.measured, [None, *findings.measured[:-1]], strict=True):
        same = before is not None and (before.setting.kind, before.setting.votes) == (
            each.setting.kind,
            each.setting.votes,
        )
        lost = f"{overthinking(before.run, each.run):.1%}" if before and same else ""
        rows.append(
            (
                each.setting.name,
                f"{each.share_ended('natural'):.1%}",
                f"{each.share_ended('max'):.1%}",
                f"{each.share_ended('loop'):.1%}",
                f"{each.share_ended(*FORCED_ENDS):.1%}",
                f"{each.continuations:.2f}",
                f"{each.forced_tokens:.1f}",
                f"{each.unanswered:.1%}",
                lost,
            )
        )
    meaning = (
        "Shares of answers whose thinking ended by itself, by the cap, or as a loop; the latter "
        "two are forced. Continuations and forced tokens are means.",
        "Overthinking: questions that most answers got right under the setting before, and got "
        "wrong under this one.",
    )
    return Section("How the thinking ended", Table(columns, tuple(rows)), meaning)


def _votes(kept: Kept, findings: Findings) -> Section | None:
    rows = []
    for each in findings.measured:
        fewest = min(len(samples) for samples in each.run.grouped.values())
        rows += [
            (
                each.setting.name,
                str(k),
                percent(accuracy(any_right(each.run, k))),
                percent(accuracy(majority(each.run, k))),
                str(fewest),
            )
            for k in _ks(fewest)
        ]
    if not rows:
        return None
    protocol = kept.protocol
    said = (
        f"pass@k without bias (arXiv 2107.03374), maj@k over all draws of k from n answers; "
        f"temperature {protocol.temperature:g}, top_p {protocol.top_p:g}."
    )
    table = Table(("setting", "k", "pass@k", "maj@k", "n"), tuple(rows))
    return Section("Several answers to a question", table, (said,))


def _ks(most: int) -> list[int]:
    """2, 4, 8, … and the most; nothing if there is but one answer."""
    powers = {2**power for power in range(1, most.bit_length())}
    return sorted(k for k in {*powers, most} if 1 < k <= most)


def _parallel(findings: Findings) -> Section:
    rows: list[tuple[str, ...]] = []
    for each in findings.voting:
        total = int(each.setting.value)
        rows += _at_a_total(findings, each, total)
    return Section(
        "One chain or several, at equal thinking",
        Table(
            (
                *("total", "way", "right", "thinking"),
                *("against one chain", "tokens / right"),
            ),
            tuple(rows),
        ),
        (
            "Tokens are those of all answers that a way draws. A chain can end before its total; "
            "the one with continuations is the longest that took no more.",
            "Best-of-k takes the answer whose tokens the model finds likeliest; pass@k is what a "
            "perfect choice would reach. Rejection asks without a cap until a thinking is no "
            "longer than the total.",
        ),
        figure="parallel",
    )


def _ways(findings: Findings, each: Measured) -> list[Run]:
    """All ways to spend a shared budget: one chain first, where it was measured."""
    total, k = int(each.setting.value), each.setting.votes
    one = findings.find(Condition(Kind.CAP, total))
    found = [] if one is None else [one.run]
    longest = [
        each.run
        for each in findings.of_kind(Kind.CONTINUATIONS)
        if each.setting.value and each.run.mean_tokens <= total
    ]
    found += longest[-1:]
    found += [way(each.run, k) for way in (majority, best_of_n, any_right)]
    unbounded = findings.unbounded
    if unbounded is not None and len(unbounded.rows) > len(unbounded.run.questions):
        found.append(rejection(unbounded.run, total))
    return [run for run in found if run.samples]


def _at_a_total(findings: Findings, each: Measured, total: int) -> Iterator[tuple[str, ...]]:
    found = _ways(findings, each)
    one = found[0] if findings.find(Condition(Kind.CAP, total)) else None
    for run in found:
        against = points(delta(run, one)) if one is not None and run is not one else ""
        yield (
            str(total),
            "one chain" if run is one else run.name,
            percent(accuracy(run)),
            count(run.mean_tokens),
            against,
            count(cost_per_correct(run.mean_generated, run.accuracy)),
        )


def _recommendation(findings: Findings) -> Section:
    caps = findings.of_kind(Kind.CAP)
    advice = recommend(caps)
    title = "Tiers that this suggests"
    if not advice:
        return Section(title, sentences=("No cap is surely better than no thinking.",))
    shared = len(shared_questions([each.run for each in caps]))
    return Section(
        title,
        sentences=(
            "`high` is the first cap that no larger one is surely better than; `medium` and `low` "
            f"keep 90% and 50% of its gain; `max` is the largest measured ({shared:,} questions).",
        ),
        snippet=to_toml(advice),
    )
