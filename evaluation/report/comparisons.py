"""The sections of the report that compare conditions with each other, and with a coin."""

from collections.abc import Iterator
from itertools import pairwise

from proctor.evaluation.conditions import Kind
from proctor.evaluation.report.findings import ConditionResults, Findings, accuracy
from proctor.evaluation.report.formatting import (
    TOO_FEW,
    Section,
    Table,
    count,
    decimal,
    p_value,
    percent,
    points,
    ratio,
    share,
)
from proctor.evaluation.report.frontier import Frontier, curves
from proctor.evaluation.statistics.delta import Interval, is_conclusive
from proctor.evaluation.statistics.efficiency import area, e_cubed
from proctor.evaluation.statistics.paired import adjust, compare
from proctor.evaluation.statistics.samples import Run, have_shared_questions

Pair = tuple[ConditionResults, ConditionResults]


def early_exit(findings: Findings) -> Section | None:
    """Compare each condition with early exit with the same one without."""
    rows = []
    for each in findings.early_exits:
        base = findings.find(each.condition.without_options)
        comparable = base is not None and have_shared_questions([each.run, base.run])
        comparison = compare(each.run, base.run) if base is not None and comparable else None
        rows.append(
            (
                each.condition.name,
                percent(each.right),
                count(each.run.mean_tokens - each.probe_tokens),
                f"{each.probe_tokens:.1f}",
                share(each.share_ended("settled")),
                share(each.share_ended("unsure")),
                "" if comparison is None else points(comparison.gain),
                "" if comparison is None else ratio(comparison.tokens_ratio),
            )
        )
    if not rows:
        return None
    columns = (
        *("condition", "right", "thinking", "probes", "settled", "unsure"),
        *("against the same without", "tokens, ratio"),
    )
    sentences = (
        "Thinking and probes are mean tokens of an answer. Everywhere else in this report thinking "
        "tokens include those of probes, and so does the ratio here.",
        "Settled and unsure are the shares of answers whose thinking ended early, as it would not "
        "change any more, or as it was lost.",
    )
    return Section("Early exit", Table(columns, tuple(rows)), sentences)


def frontier(findings: Findings) -> Section | None:
    """Compare every condition with a coin between fixed ones, and with a perfect router."""
    lines = Frontier.of(findings)
    if not lines.is_comparable:
        return None
    title = "Against a coin and a perfect router"
    if not is_conclusive([*lines.fixed, *lines.others]):
        return Section(title, sentences=(TOO_FEW,))
    judged = lines.margins()
    columns = ("condition", "right", "thinking", "generated", "E³", "above the coin")
    table = Table(columns, tuple(_frontier_row(run, margin) for run, margin in judged))
    first = len(lines.fixed)
    others = [
        _against_the_coin(lines, run, margin)
        for run, margin in judged[first : first + len(lines.others)]
    ]
    corners = ", ".join(f"'{run.name}'" for run in lines.corners)
    sentences = (
        "E³ is the square of the accuracy in percent, divided by the mean generated tokens "
        "(arXiv 2505.16122).",
        "Above the coin: percentage points of accuracy above what a coin between two fixed "
        "conditions gets with the same mean of thinking tokens: the upper concave hull of these "
        "conditions (caps, continuations, tiers but auto, efforts), drawn anew in each resample; a "
        f"fixed condition is compared with the other ones. The hull's corners: {corners}.",
        *others,
        *_on_routers(lines),
    )
    return Section(title, table, sentences, figure="frontier")


def _frontier_row(run: Run, margin: Interval) -> tuple[str, ...]:
    return (
        run.name,
        percent(accuracy(run)),
        count(run.mean_tokens),
        count(run.mean_generated),
        decimal(e_cubed(run)),
        points(margin),
    )


def _against_the_coin(lines: Frontier, run: Run, margin: Interval) -> str:
    place = "not significantly off"
    if margin.low > 0:
        place = "above"
    elif margin.high < 0:
        place = "below"
    between = " and ".join(f"'{each.name}'" for each in lines.coin(run.mean_tokens))
    return f"'{run.name}' is {place} the line of {between}: {points(margin)} points."


def _on_routers(lines: Frontier) -> Iterator[str]:
    yield (
        "The perfect router takes for each question the cheapest fixed condition that is right, "
        "or else the cheapest. It sees the answers that it is judged by, and takes the lucky ones: "
        "an upper bound that no router reaches."
    )
    if len(lines.routers) > 1:
        yield (
            "Held out, it chooses by the question's other answers and is judged by the one left "
            "out, in turn: without that luck, but by few answers. A router that knew the chances "
            "of each question would be between the two. The table has it at the price per token at "
            "which the cheapest condition is worth as much as the most accurate; the figure at all."
        )
    else:
        yield (
            "With one answer per question and condition luck cannot be told from difficulty: use "
            "--samples 2 or more for a router that is judged by answers that it has not seen."
        )


def areas(findings: Findings) -> Section | None:
    """Compare ways to spend tokens over the whole range of budgets."""
    by_name = {name: runs for name, runs in curves(findings).items() if is_conclusive(runs)}
    means = [run.mean_tokens for runs in by_name.values() for run in runs]
    positive = [mean for mean in means if mean > 0]
    if not positive or min(positive) == max(positive):
        return None
    low, high = min(positive), max(positive)
    rows = tuple(
        (name, str(len(runs)), percent(area(runs, low, high))) for name, runs in by_name.items()
    )
    sentence = (
        f"The area under accuracy over log2 of the mean thinking tokens, from {low:,.0f} to "
        f"{high:,.0f}, divided by the width of that range: the mean accuracy over budgets of which "
        "every doubling has the same weight. At each budget it is the accuracy of a coin between "
        "the conditions of the curve; the one without thinking belongs to every curve."
    )
    table = Table(("curve", "conditions", "area"), rows)
    return Section("Area under the curve", table, (sentence,))


def paired(findings: Findings) -> Section | None:
    """Test conditions against each other on the same questions."""
    pairs = [
        pair for pair in _pairs(findings) if have_shared_questions([each.run for each in pair])
    ]
    if not pairs:
        return None
    comparisons = [compare(each.run, other.run) for each, other in pairs]
    adjusted = adjust([comparison.p_value for comparison in comparisons])
    rows = tuple(
        (
            each.condition.name,
            other.condition.name,
            f"{comparison.questions:,}",
            points(comparison.gain),
            p_value(p),
            ratio(comparison.tokens_ratio),
            ratio(comparison.generated_ratio),
        )
        for (each, other), comparison, p in zip(pairs, comparisons, adjusted, strict=True)
    )
    columns = (
        "condition",
        "against",
        "questions",
        "gain",
        "p",
        "thinking, ratio",
        "generated, ratio",
    )
    sentences = (
        "Each condition with options is compared with the same one without, and several chains "
        "also with the longest chain of continuations within their total; auto with the other "
        "tiers; the others with the one before.",
        "p is of the paired randomization test over questions, each with the mean of its answers: "
        "with one answer McNemar's exact test. It is adjusted by Holm's method for the tests of "
        "this table. Ratios are of mean tokens.",
    )
    return Section("Paired comparisons", Table(columns, rows), sentences)


def _pairs(findings: Findings) -> Iterator[Pair]:
    for kind in Kind:
        fixed = [each for each in findings.of_kind(kind) if each.condition.is_fixed]
        yield from ((each, before) for before, each in pairwise(fixed))
        routed = [each for each in findings.of_kind(kind) if not each.condition.is_fixed]
        yield from ((each, other) for each in routed for other in fixed)
    for each in findings.results:
        base = findings.find(each.condition.without_options)
        if each.condition.options and base is not None:
            yield each, base
        if each.condition.parallel is not None and each.condition.kind == Kind.CAP:
            within = findings.continuations_within(int(each.condition.value))
            yield from ((each, longest) for longest in within[-1:])
