"""Recommends tiers: the caps that keep most of the accuracy gained by thinking."""

from collections.abc import Sequence
from dataclasses import dataclass

from proctor.evaluation.report.findings import ConditionResults, first_unbeaten
from proctor.evaluation.statistics.delta import Verdict, delta

LOW_SHARE, MEDIUM_SHARE = 0.5, 0.9
"""The shares of the gain over no thinking that the tiers `low` and `medium` must keep."""


@dataclass(frozen=True, slots=True)
class RecommendedTier:
    """A recommended tier.

    Attributes:
        name: the tier's name.
        max_tokens: its cap.
        right: the share of right answers under this cap.
    """

    name: str
    max_tokens: int
    right: float


def recommend(caps: Sequence[ConditionResults]) -> list[RecommendedTier]:
    """Recommend tiers from the results of rising caps, the first of which is 0.

    `high` is the first cap that no larger one significantly beats; `medium` and `low` keep 90%
    and 50% of its gain; `max` is the largest measured. The list is empty if thinking does not
    significantly pay.

    Raises:
        ValueError: if the first is not a cap of 0.
    """
    bounded = [each for each in caps if each.condition.max_tokens is not None]
    if not bounded or bounded[0].condition.max_tokens != 0:
        raise ValueError("a recommendation requires the answers without thinking (--budgets 0,…)")
    none = bounded[0]
    best = first_unbeaten([each.run for each in bounded])
    high = next(each for each in bounded if each.run is best)
    if high is none or delta(high.run, none.run).verdict != Verdict.PAYS:
        return []
    gain = high.run.accuracy - none.run.accuracy

    def smallest(share: float) -> ConditionResults:
        target = none.run.accuracy + share * gain
        return next(each for each in bounded if each is high or each.run.accuracy >= target)

    chosen = {
        "none": none,
        "low": smallest(LOW_SHARE),
        "medium": smallest(MEDIUM_SHARE),
        "high": high,
        "max": bounded[-1],
    }
    return [
        RecommendedTier(name, each.condition.max_tokens or 0, each.run.accuracy)
        for name, each in chosen.items()
    ]


def to_toml(tiers: Sequence[RecommendedTier]) -> str:
    """Format the tiers for `proctor.toml`."""
    return "\n".join(
        f'[[tiers]]\nname = "{each.name}"\nmax_tokens = {each.max_tokens}'
        f"  # {each.right:.1%} right\n"
        for each in tiers
    )
