"""From the thinking that was used, per tier, to caps and costs. A pure function of the rows.

A thinking that ran into its cap would have gone on: how long is not known, only
that it was longer. Such rows are censored. Leaving them out would make every tier
look shorter than it is, and taking them at their cap would do the same more
slowly. The lengths are therefore estimated by Kaplan and Meier: at each length at
which a thinking ended by itself, the share of those still going that ended there.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proctor.router.decision import DEFAULT_COSTS, Costs
from proctor.router.decision import Row as CostRow
from proctor.router.prediction import LEVELS

NATURAL = "natural"
LOOP = "loop"
CENSORED = frozenset({"max", "length", "stop", "cancelled"})
"""Ends of a thinking that would have gone on. A loop is neither: no cap makes it end well."""

FEWEST_ENDS = 30
"""Natural ends below which nothing is proposed for a tier."""

LEAST_COST = 0.1
"""Too much thinking is never free, whatever the sample says."""

ROOM = 0.25
"""Where too many were cut short to see the quantile, the cap is proposed this much higher."""


@dataclass(frozen=True, slots=True)
class Row:
    """One choice of the ledger.

    Attributes:
        tier: the tier it was given.
        tokens: thinking tokens.
        end_reason: why its thinking ended.
        max_tokens: the cap it had, None for none.
    """

    tier: str
    tokens: int
    end_reason: str
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the rows of one tier say.

    Attributes:
        tier: the tier.
        rows: how many there were.
        natural: the share that ended by itself.
        capped: the share that ran into a cap.
        looped: the share that was stopped in a loop.
        cap: thinking tokens to propose as the maximum, None for too few rows.
        beyond: whether the quantile lies beyond all caps that were tried, so
            that `cap` is only the next to try.
        spent: mean thinking tokens a row, as it was.
        expected: mean under `cap`, at most, None for none proposed.
    """

    tier: str
    rows: int
    natural: float
    capped: float
    looped: float
    cap: int | None
    beyond: bool
    spent: float
    expected: float | None

    @property
    def saving(self) -> float | None:
        """The share of thinking tokens that `cap` saves; negative where it asks for more."""
        if self.expected is None or not self.spent:
            return None
        return 1.0 - self.expected / self.spent


def propose(rows: Iterable[Row], quantile: float = 0.9) -> tuple[Proposal, ...]:
    """Caps under which this share of thinkings would end by themselves, tier by tier.

    Raises:
        ValueError: if the quantile is not between 0 and 1.
    """
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"a quantile lies between 0 and 1, not at {quantile}")
    tiers: dict[str, list[Row]] = {}
    for row in rows:
        # Without any thinking there is nothing to learn about its length.
        if row.max_tokens != 0 and row.end_reason in CENSORED | {NATURAL, LOOP}:
            tiers.setdefault(row.tier, []).append(row)
    return tuple(_propose(tier, tiers[tier], quantile) for tier in sorted(tiers))


def _propose(tier: str, rows: Sequence[Row], quantile: float) -> Proposal:
    reasons = Counter(row.end_reason for row in rows)
    count = len(rows)
    survival = survivors(rows)
    cap, beyond = None, False
    if reasons[NATURAL] >= FEWEST_ENDS:
        ended = [tokens for tokens, still in survival if still <= 1.0 - quantile + 1e-9]
        beyond = not ended
        cap = ended[0] if ended else round(max(row.tokens for row in rows) * (1.0 + ROOM))
    return Proposal(
        tier=tier,
        rows=count,
        natural=reasons[NATURAL] / count,
        capped=reasons["max"] / count,
        looped=reasons[LOOP] / count,
        cap=cap,
        beyond=beyond,
        spent=sum(row.tokens for row in rows) / count,
        expected=None if cap is None else _expected(rows, survival, cap),
    )


def survivors(rows: Iterable[Row]) -> list[tuple[int, float]]:
    """Kaplan and Meier's estimate: lengths of natural ends, and the share that goes on past each.

    Loops are left out: they are faults, and their length is the detector's.
    """
    lengths = [row for row in rows if row.end_reason != LOOP]
    ended = Counter(row.tokens for row in lengths if row.end_reason == NATURAL)
    gone = Counter(row.tokens for row in lengths)
    at_risk, share = len(lengths), 1.0
    found = []
    for tokens in sorted(gone):
        if ended[tokens]:
            share *= 1.0 - ended[tokens] / at_risk
            found.append((tokens, share))
        at_risk -= gone[tokens]
    return found


def _expected(rows: Sequence[Row], survival: Sequence[tuple[int, float]], cap: int) -> float:
    """Mean tokens under a cap: the area under the curve up to it, and loops as they were."""
    area, at, share = 0.0, 0, 1.0
    for tokens, still in survival:
        if tokens >= cap:
            break
        area += (tokens - at) * share
        at, share = tokens, still
    area += (cap - at) * share
    loops = [min(row.tokens, cap) for row in rows if row.end_reason == LOOP]
    return (area * (len(rows) - len(loops)) + sum(loops)) / len(rows)


def propose_costs(proposals: Sequence[Proposal], costs: Costs = DEFAULT_COSTS) -> Costs | None:
    """The costs with what too much thinking cost in this traffic, None where a level lacks rows.

    Sending a prompt one level too high costs 1 on average. What too little
    thinking costs cannot be read from a ledger: those costs stay as they are.
    """
    spent = {proposal.tier: proposal.spent for proposal in proposals}
    spent.setdefault(LEVELS[0], 0.0)
    if not all(level in spent for level in LEVELS):
        return None
    means = [spent[level] for level in LEVELS]
    step = (means[-1] - means[0]) / (len(LEVELS) - 1)
    if step <= 0.0:
        return None
    rows = [
        tuple(
            max(LEAST_COST, round((means[sent] - means[level]) / step, 2)) if sent > level else cost
            for sent, cost in enumerate(row)
        )
        for level, row in enumerate(costs.rows)
    ]
    none, low, medium, high = (_row(row) for row in rows)
    return Costs(none, low, medium, high)


def _row(costs: tuple[float, ...]) -> CostRow:
    none, low, medium, high = costs
    return (none, low, medium, high)
