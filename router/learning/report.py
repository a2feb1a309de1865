"""What was learned, as Markdown."""

from collections.abc import Iterator

from proctor.router.learning.calibration import MAX_Z, Calibration, Drift
from proctor.router.learning.judgement import Estimate
from proctor.router.learning.learner import Findings, Learned
from proctor.router.outcomes.policy import Rule


def to_markdown(learned: Learned) -> str:
    """Return the report of an outcome model."""
    return "\n".join(_lines(learned)) + "\n"


def _lines(learned: Learned) -> Iterator[str]:
    yield "# The router's outcome model"
    yield ""
    if learned.objections:
        yield "**Not to be used**: " + "; ".join(learned.objections) + "."
    else:
        yield "**To be used**: on held-out prompts it keeps what was asked for."
    yield ""
    yield "| tier | answers | graded |"
    yield "|---|--:|--:|"
    for tier, count in learned.answers.items():
        yield f"| {tier} | {count} | {learned.graded[tier]} |"
    if learned.endings:
        endings = ", ".join(f"{count} {ending}" for ending, count in learned.endings.items())
        yield ""
        yield f"Without a grade, by how they ended: {endings}."
    if learned.findings is not None:
        yield from _findings(learned.findings, [*learned.answers])
    yield from _drift(learned.drift)


def _findings(findings: Findings, tiers: list[str]) -> Iterator[str]:
    judgement, price = findings.judgement, findings.price
    yield ""
    yield "## On held-out prompts"
    yield ""
    yield "| | right | 95% | thinking tokens | 95% |"
    yield "|---|--:|--:|--:|--:|"
    yield _row("**routed**", judgement.routed)
    yield _row("by the costs of misclassification", judgement.shipped)
    for tier, estimate in zip(tiers, judgement.fixed, strict=True):
        yield _row(f"always {tier}", estimate)
    low, high = judgement.gain_interval
    yield ""
    yield (
        f"A coin between two tiers would be {judgement.line:.1%} right with the tokens of the "
        f"routed answers: the gain is {100 * judgement.gain:+.1f} points "
        f"({100 * low:+.1f} to {100 * high:+.1f})."
    )
    yield ""
    prices = f"{price.low:.0f}"
    if price.share:
        prices += f", and for {price.share:.0%} of the prompts {price.high:.0f}"
    if findings.rule is Rule.ERROR_COST:
        yield f"A wrong answer costs {prices} thinking tokens (`error_cost`)."
    else:
        yield f"By `{findings.rule}` a wrong answer costs {prices} thinking tokens."
    yield from _calibration(findings.calibration)


def _row(name: str, estimate: Estimate) -> str:
    (low, high), (fewest, most) = estimate.right_interval, estimate.tokens_interval
    # Corrected estimates of no tokens are off by rounding.
    used, fewest, most = (max(0.0, tokens) for tokens in (estimate.tokens, fewest, most))
    return (
        f"| {name} | {estimate.right:.1%} | {low:.1%} to {high:.1%} "
        f"| {used:.1f} | {fewest:.1f} to {most:.1f} |"
    )


def _calibration(calibration: Calibration) -> Iterator[str]:
    yield ""
    yield "## Calibration"
    yield ""
    yield (
        f"Brier score {calibration.brier:.4f}; {calibration.reference:.4f} by each tier's share of "
        "right answers."
    )
    yield ""
    yield "| predicted | right | 95% | answers |"
    yield "|--:|--:|--:|--:|"
    for each in calibration.bins:
        low, high = each.interval
        yield (
            f"| {each.predicted:.1%} | {each.observed:.1%} | {low:.1%} to {high:.1%} "
            f"| {each.count} |"
        )


def _drift(drift: Drift | None) -> Iterator[str]:
    yield ""
    yield "## Drift"
    yield ""
    if drift is None:
        yield "Not measured: there are too few answers."
        return
    yield (
        f"The prompts of the newest quarter: population stability index {drift.psi:.2f}, "
        + (
            f"over {drift.max_psi:.2f}: **other prompts than before**."
            if drift.prompts_shifted
            else f"not over {drift.max_psi:.2f}."
        )
    )
    if drift.z is None:
        yield "Their answers: too few are graded."
    elif drift.accuracy_shifted:
        direction = "better" if drift.z > 0 else "worse"
        yield (
            f"Their answers: {drift.z:+.1f} standard errors from what the earlier ones predict, "
            f"over {MAX_Z:.0f}: **{direction} than before**."
        )
    else:
        yield f"Their answers: {drift.z:+.1f} standard errors from what the earlier ones predict."
