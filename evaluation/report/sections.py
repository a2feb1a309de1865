"""The sections of the report on a run, independent of how they are rendered."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.report.comparisons import areas, early_exit, frontier, paired
from proctor.evaluation.report.findings import (
    FORCED_ENDS,
    ConditionResults,
    Findings,
    accuracy,
    first_unbeaten,
)
from proctor.evaluation.report.formatting import (
    TOO_FEW,
    Section,
    Table,
    count,
    mean,
    money,
    percent,
    points,
    ratio,
    share,
)
from proctor.evaluation.report.recommend import recommend, to_toml
from proctor.evaluation.statistics.curve import flattens_at, performance, scaling
from proctor.evaluation.statistics.delta import (
    MIN_QUESTIONS,
    STEP_TOKENS,
    delta,
    is_conclusive,
    slope,
)
from proctor.evaluation.statistics.price import (
    cost_per_correct,
    find_crossover,
    first_better,
    overthinking,
)
from proctor.evaluation.statistics.samples import (
    Run,
    have_shared_questions,
    shared_questions,
)
from proctor.evaluation.statistics.strategies import any_right, best_of_n, majority, rejection
from proctor.evaluation.store import StoredRun

TITLES = {
    Kind.CAP: "Accuracy against the cap on thinking",
    Kind.CONTINUATIONS: "Accuracy against continuations",
    Kind.TIER: "Tiers",
    Kind.EFFORT: "Efforts",
}
MIN_DOUBLINGS = 0.1
"""The minimum distance, in doublings, of two conditions for a slope between them."""

NOTHING_SHARED = (
    "No question has an answer under each of these conditions: start the run again to complete it."
)

CURVES = (Kind.CAP, Kind.CONTINUATIONS)
"""Kinds whose conditions are points on a curve."""


def sections(stored: StoredRun, findings: Findings) -> list[Section]:
    """Build the report on one run.

    Args:
        stored: the run.
        findings: its answers, grouped by condition.
    """
    report = [_setup(stored, findings)]
    report += [_comparison(findings, kind) for kind in Kind if findings.of_kind(kind)]
    report.append(_end_reasons(findings))
    optional = (
        early_exit(findings),
        _votes(stored, findings),
        _parallel(findings),
        frontier(findings),
        areas(findings),
        paired(findings),
    )
    report += [section for section in optional if section is not None]
    caps = findings.of_kind(Kind.CAP)
    measured = findings.find(Condition(Kind.CAP, 0)) and len(caps) > 1
    if measured and have_shared_questions([each.run for each in caps]):
        report.append(_recommendation(findings))
    return report


def two_models(small: Findings, large: Findings) -> Section:
    """Compare a small model that thinks with a large one that does not, or hardly.

    The small model's conditions are tried from the fewest generated tokens to the most.
    """
    without = large.baseline
    comparable = [
        each.run
        for each in small.results
        if each.condition.votes == 1 and have_shared_questions([each.run, without.run])
    ]
    title = "Two models"
    against = f"the large model under '{without.condition.name}', {percent(without.right)} right"
    if not comparable:
        sentence = f"Not compared: no answer is to a question of {against}."
        return Section(title, sentences=(sentence,))
    if not any(is_conclusive([run, without.run]) for run in comparable):
        return Section(title, sentences=(TOO_FEW,))
    by_tokens = sorted(comparable, key=lambda run: run.mean_generated)
    crossover = find_crossover(by_tokens, without.run)
    if crossover is None:
        sentence = f"No condition makes the small model significantly better than {against}."
        return Section(title, sentences=(sentence,))
    return Section(
        title,
        sentences=(
            f"'{crossover.run.name}' is the condition with the fewest generated tokens in which "
            f"the small model is significantly more often right than {against}: by "
            f"{points(crossover.gain)} points.",
            f"A right answer costs the same if the large model's price per token is "
            f"{ratio(crossover.price_ratio)} times the small one's; above that the small one is "
            "cheaper. All generated tokens are counted.",
        ),
    )


def _setup(stored: StoredRun, findings: Findings) -> Section:
    config = stored.config
    uncounted = sum(row.tokens is None for row in stored.rows)
    missing = (
        (
            f"The server does not count the thinking tokens of {uncounted:,} answers "
            "(usage.completion_tokens_details.reasoning_tokens): what needs them is missing, or -.",
        )
        if uncounted
        else ()
    )
    questions = {row.question for row in stored.rows}
    samples = sorted({len(each.rows) / len(each.run.questions) for each in findings.results})
    spread = f"{samples[0]:g}" if len(samples) == 1 else f"{samples[0]:g} to {samples[-1]:g}"
    return Section(
        "Setup",
        sentences=(
            f"Model {config.model}; task {config.task}, template {config.template!r}; "
            f"{len(questions):,} questions; answers per question and condition: {spread}; "
            f"{len(stored.rows):,} in total.",
            f"Temperature {config.temperature:g}, top_p {config.top_p:g}, seed "
            f"{config.seed}; scorer {config.scorer}.",
            "Intervals are at 95%, from 10,000 bootstrap resamples of the questions, each drawn "
            "with all its answers; those of shares and of gains with one more question at each of "
            "their bounds, as 0 of 40 does not prove 0%. A difference is significant if its "
            f"interval excludes 0; of fewer than {MIN_QUESTIONS} questions, none is.",
            *missing,
        ),
    )


def _comparison(findings: Findings, kind: Kind) -> Section:
    conditions, base = findings.of_kind(kind), findings.baseline_of(kind)
    table = Table(
        (
            *("condition", "answers", "right", "thinking", "within", "gain", "verdict"),
            *("tokens / right", "cost / right"),
        ),
        tuple(_row(each, base) for each in conditions),
    )
    sentences = [
        f"The gain is against '{base.condition.name}', in percentage points, paired by question."
    ]
    if not have_shared_questions([base.run, *(each.run for each in conditions)]):
        sentences.append(NOTHING_SHARED)
    elif not is_conclusive([base.run, *(each.run for each in conditions)]):
        sentences.append(TOO_FEW)
    elif kind in CURVES:
        sentences += _curve(conditions, base)
    return Section(TITLES[kind], table, tuple(sentences), figure=kind.value)


def _row(each: ConditionResults, base: ConditionResults) -> tuple[str, ...]:
    gain, verdict = "", ""
    if each is not base and have_shared_questions([each.run, base.run]):
        difference = delta(each.run, base.run)
        gain, verdict = points(difference), difference.verdict.value
    return (
        each.condition.name,
        f"{len(each.rows):,}",
        percent(each.right),
        count(each.run.mean_tokens),
        share(each.within),
        gain,
        verdict,
        count(cost_per_correct(each.run.mean_generated, each.run.accuracy)),
        money(each.cost_per_correct),
    )


def _curve(conditions: Sequence[ConditionResults], base: ConditionResults) -> Iterator[str]:
    runs = [each.run for each in conditions]
    yield f"Performance, the best accuracy: {performance([run.accuracy for run in runs]):.1%}."
    thinking = [(run.mean_tokens, run.accuracy) for run in runs if run.mean_tokens > 0]
    with suppress(ValueError):  # no two conditions are far enough apart
        yield (
            f"Scaling: {scaling(thinking, MIN_DOUBLINGS):+.1f} percentage points per doubling of "
            "the thinking tokens, the mean over the pairs of conditions with thinking that differ "
            "by at least a tenth of a doubling."
        )
    if len(runs) > 1:
        if all(run.has_token_counts for run in runs):
            gain = points(slope(runs))
            yield f"Slope: {gain} percentage points per {STEP_TOKENS} thinking tokens."
        best = runs[flattens_at([run.accuracy for run in runs])]
        yield (
            f"It flattens at '{first_unbeaten(runs).name}': no later condition is significantly "
            f"better. No condition after '{best.name}' has a higher accuracy."
        )
        first = first_better([run for run in runs if run is not base.run], base.run)
        better = "none" if first is None else f"'{first.name}'"
        yield f"First condition significantly better than '{base.condition.name}': {better}."


def _end_reasons(findings: Findings) -> Section:
    columns = (
        *("condition", "natural", "cap", "loop", "forced end"),
        *("continued", "forced tokens", "no answer", "overthinking"),
    )
    rows = []
    for each, previous in zip(findings.results, [None, *findings.results[:-1]], strict=True):
        comparable = previous is not None and _differ_in_budget(previous, each)
        lost = f"{overthinking(previous.run, each.run):.1%}" if previous and comparable else ""
        rows.append(
            (
                each.condition.name,
                share(each.share_ended("natural")),
                share(each.share_ended("max")),
                share(each.share_ended("loop")),
                share(each.share_ended(*FORCED_ENDS)),
                mean(each.continuations, 2),
                mean(each.forced_tokens, 1),
                share(each.unanswered),
                lost,
            )
        )
    legend = [
        "Shares of answers whose thinking ended naturally, by the cap, or as a loop; the latter "
        "two are forced. Continuations and forced tokens are means per answer.",
        "Overthinking: questions that most answers got right under the previous condition, and "
        "wrong under this one.",
    ]
    if findings.early_exits:
        legend.append("Thinking that ended early is in the section on early exit.")
    return Section("How the thinking ended", Table(columns, tuple(rows)), tuple(legend))


def _differ_in_budget(previous: ConditionResults, each: ConditionResults) -> bool:
    """Return whether two conditions differ only in their budget, and share a question."""
    one, other = previous.condition, each.condition
    return (one.kind, one.votes, one.options) == (
        other.kind,
        other.votes,
        other.options,
    ) and have_shared_questions([previous.run, each.run])


def _votes(stored: StoredRun, findings: Findings) -> Section | None:
    rows = []
    for each in findings.results:
        answers = min(len(samples) for samples in each.run.grouped.values())
        rows += [
            (
                each.condition.name,
                str(k),
                percent(accuracy(any_right(each.run, k))),
                percent(accuracy(majority(each.run, k))),
                str(answers),
            )
            for k in _ks(answers)
        ]
    if not rows:
        return None
    config = stored.config
    sentence = (
        f"pass@k is unbiased (arXiv 2107.03374), maj@k is over all draws of k from n answers; "
        f"temperature {config.temperature:g}, top_p {config.top_p:g}."
    )
    table = Table(("condition", "k", "pass@k", "maj@k", "n"), tuple(rows))
    return Section("Several answers per question", table, (sentence,))


def _ks(answers: int) -> list[int]:
    """Return 2, 4, 8, … and the number of answers; nothing for a single answer."""
    powers = {2**power for power in range(1, answers.bit_length())}
    return sorted(k for k in {*powers, answers} if 1 < k <= answers)


def _parallel(findings: Findings) -> Section | None:
    shared = [each.condition for each in [*findings.voting, *findings.parallel]]
    totals = sorted({int(each.value) for each in shared})
    if not totals:
        return None
    rows = [row for total in totals for row in _rows_of_total(findings, total)]
    return Section(
        "One chain or several, at equal thinking tokens",
        Table(
            (
                *("total", "strategy", "right", "thinking"),
                *("against one chain", "tokens / right"),
            ),
            tuple(rows),
        ),
        (
            "Tokens are those of all answers that a strategy draws. A chain can end before its "
            "total; the one with continuations is the longest within the total.",
            "Best-of-k selects the answer with the highest mean log probability; pass@k is the "
            "upper bound of any selection. Rejection samples without a cap until the thinking is "
            "within the total. Parallel is one request, whose chains the server runs and stops.",
        ),
        figure="parallel",
    )


def _strategies(findings: Findings, total: int) -> list[Run]:
    """Return the runs of all strategies with a shared budget: one chain first, if measured."""
    one = findings.find(Condition(Kind.CAP, total))
    runs = [] if one is None else [one.run]
    runs += [each.run for each in findings.continuations_within(total)[-1:]]
    voting = [each for each in findings.voting if each.condition.value == total]
    runs += [
        strategy(each.run, each.condition.votes)
        for each in voting
        for strategy in (majority, best_of_n, any_right)
    ]
    runs += [
        replace(each.run, name=" + ".join(each.condition.options))
        for each in findings.parallel
        if each.condition.without_options == Condition(Kind.CAP, total)
    ]
    unbounded = findings.unbounded
    if voting and unbounded is not None and _can_reject(unbounded):
        runs.append(rejection(unbounded.run, total))
    return [run for run in runs if run.samples]


def _can_reject(each: ConditionResults) -> bool:
    """Return whether there are several answers to a question, of known lengths."""
    return len(each.rows) > len(each.run.questions) and each.run.has_token_counts


def _rows_of_total(findings: Findings, total: int) -> Iterator[tuple[str, ...]]:
    runs = _strategies(findings, total)
    one = runs[0] if findings.find(Condition(Kind.CAP, total)) else None
    for run in runs:
        comparable = one is not None and run is not one and have_shared_questions([run, one])
        against = points(delta(run, one)) if one is not None and comparable else ""
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
    title = "Recommended tiers"
    if not is_conclusive([each.run for each in caps]):
        return Section(title, sentences=(TOO_FEW,))
    tiers = recommend(caps)
    if not tiers:
        return Section(title, sentences=("No cap is significantly better than no thinking.",))
    shared = len(shared_questions([each.run for each in caps]))
    return Section(
        title,
        sentences=(
            "`high` is the first cap that no larger one significantly beats; `medium` and `low` "
            f"keep 90% and 50% of its gain; `max` is the largest measured ({shared:,} questions).",
        ),
        snippet=to_toml(tiers),
    )
