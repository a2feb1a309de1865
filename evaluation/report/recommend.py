"""Tiers from a curve: the caps at which most of what thinking gains is gained."""

from collections.abc import Sequence
from dataclasses import dataclass

from proctor.evaluation.report.findings import Measured, no_surer
from proctor.evaluation.statistics.delta import Verdict, delta

LOW_SHARE, MEDIUM_SHARE = 0.5, 0.9
"""Of the whole gain over no thinking, what the tiers `low` and `medium` are to keep."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A tier and what speaks for it.

    Attributes:
        name: the tier's.
        max_tokens: its cap.
        right: the share of right answers under this cap.
    """

    name: str
    max_tokens: int
    right: float


def recommend(caps: Sequence[Measured]) -> list[Advice]:
    """A tier for each level of difficulty, from rising caps of which the first is no thinking.

    `high` is the first cap that no larger one is surely better than; `medium` and
    `low` keep 90% and 50% of its gain; `max` is the largest that was measured.
    Where thinking does not surely pay, there is nothing to recommend.

    Raises:
        ValueError: if the first is not a cap of 0.
    """
    bounded = [each for each in caps if each.setting.most is not None]
    if not bounded or bounded[0].setting.most != 0:
        raise ValueError("a recommendation needs the answers without thinking")
    none = bounded[0]
    best = no_surer([each.run for each in bounded])
    high = next(each for each in bounded if each.run is best)
    if high is none or delta(high.run, none.run).verdict != Verdict.PAYS:
        return []
    gain = high.run.accuracy - none.run.accuracy

    def least(share: float) -> Measured:
        wanted = none.run.accuracy + share * gain
        return next(each for each in bounded if each is high or each.run.accuracy >= wanted)

    chosen = {
        "none": none,
        "low": least(LOW_SHARE),
        "medium": least(MEDIUM_SHARE),
        "high": high,
        "max": bounded[-1],
    }
    return [
        Advice(name, each.setting.most or 0, each.run.accuracy) for name, each in chosen.items()
    ]


def to_toml(advice: Sequence[Advice]) -> str:
    """The tiers as `proctor.toml` has them."""
    return "\n".join(
        f'[[tiers]]\nname = "{each.name}"\nmax_tokens = {each.max_tokens}'
        f"  # {each.right:.1%} right\n"
        for each in advice
    )
