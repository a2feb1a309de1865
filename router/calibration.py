"""Proposes caps and misclassification costs from the thinking tokens that each tier used.

A thinking block that reached its cap would have been longer by an unknown amount:
its length is right-censored. Dropping censored rows, or treating the cap as the
length, would underestimate every tier. Lengths are therefore estimated with the
Kaplan-Meier estimator, with natural ends as the events.
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
"""End reasons of censored thinking. A loop is neither censored nor natural: it would not have
ended well under any cap."""

MIN_NATURAL_ENDS = 30
"""Minimum number of natural ends for a proposal."""

MIN_COST = 0.1
"""Lower bound on the cost of too much thinking, whatever the sample."""

CAP_INCREASE = 0.25
"""If the quantile lies beyond every observed length, the cap is the longest plus this fraction."""


@dataclass(frozen=True, slots=True)
class Row:
    """One choice of the ledger.

    Attributes:
        tier: the tier of its budget.
        tokens: thinking tokens.
        end_reason: why its thinking ended.
        max_tokens: the cap in effect; None means no cap.
    """

    tier: str
    tokens: int
    end_reason: str
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """The statistics of one tier and the cap proposed for it.

    Attributes:
        tier: the tier.
        rows: the number of rows.
        natural: the fraction that ended naturally.
        capped: the fraction that reached the cap.
        looped: the fraction that was stopped in a loop.
        cap: the proposed maximum of thinking tokens; None if there are too few natural ends.
        beyond: whether the quantile lies beyond all caps observed, so that `cap`
            is only the next one to try.
        spent: mean thinking tokens per row, as observed.
        expected: upper bound on the mean under `cap`; None without a cap.
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
        """The fraction of thinking tokens that `cap` saves; negative if it needs more."""
        if self.expected is None or not self.spent:
            return None
        return 1.0 - self.expected / self.spent


def propose(rows: Iterable[Row], quantile: float = 0.9) -> tuple[Proposal, ...]:
    """Return, per tier, the cap under which this fraction of thinking blocks ends naturally.

    Raises:
        ValueError: if the quantile is not between 0 and 1.
    """
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"quantile must be between 0 and 1 (exclusive), not {quantile}")
    tiers: dict[str, list[Row]] = {}
    for row in rows:
        # A budget of 0 says nothing about the length of thinking.
        if row.max_tokens != 0 and row.end_reason in CENSORED | {NATURAL, LOOP}:
            tiers.setdefault(row.tier, []).append(row)
    return tuple(_propose(tier, tiers[tier], quantile) for tier in sorted(tiers))


def _propose(tier: str, rows: Sequence[Row], quantile: float) -> Proposal:
    reasons = Counter(row.end_reason for row in rows)
    count = len(rows)
    survival = kaplan_meier(rows)
    cap, beyond = None, False
    if reasons[NATURAL] >= MIN_NATURAL_ENDS:
        caps = [tokens for tokens, surviving in survival if surviving <= 1.0 - quantile + 1e-9]
        beyond = not caps
        cap = caps[0] if caps else round(max(row.tokens for row in rows) * (1.0 + CAP_INCREASE))
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


def kaplan_meier(rows: Iterable[Row]) -> list[tuple[int, float]]:
    """Estimate the survival function: natural lengths, and the fraction that exceeds each.

    Loops are left out: they are failures, and the loop detector sets their length.
    """
    lengths = [row for row in rows if row.end_reason != LOOP]
    natural = Counter(row.tokens for row in lengths if row.end_reason == NATURAL)
    total = Counter(row.tokens for row in lengths)
    at_risk, surviving = len(lengths), 1.0
    survival = []
    for tokens in sorted(total):
        if natural[tokens]:
            surviving *= 1.0 - natural[tokens] / at_risk
            survival.append((tokens, surviving))
        at_risk -= total[tokens]
    return survival


def _expected(rows: Sequence[Row], survival: Sequence[tuple[int, float]], cap: int) -> float:
    """Return mean tokens under a cap: the area under the survival function, plus loops as is."""
    area, position, surviving = 0.0, 0, 1.0
    for tokens, surviving_after in survival:
        if tokens >= cap:
            break
        area += (tokens - position) * surviving
        position, surviving = tokens, surviving_after
    area += (cap - position) * surviving
    loops = [min(row.tokens, cap) for row in rows if row.end_reason == LOOP]
    return (area * (len(rows) - len(loops)) + sum(loops)) / len(rows)


def propose_costs(proposals: Sequence[Proposal], costs: Costs = DEFAULT_COSTS) -> Costs | None:
    """Return `costs` with the cost of too much thinking replaced by that of this traffic.

    Costs are scaled so that sending a prompt one level too high costs 1 on average.
    The cost of too little thinking cannot be estimated from a ledger and is kept.
    The result is None if a level has no rows, or if thinking does not grow with the level.
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
            max(MIN_COST, round((means[sent] - means[level]) / step, 2)) if sent > level else cost
            for sent, cost in enumerate(row)
        )
        for level, row in enumerate(costs.rows)
    ]
    none, low, medium, high = (_row(row) for row in rows)
    return Costs(none, low, medium, high)


def _row(costs: tuple[float, ...]) -> CostRow:
    none, low, medium, high = costs
    return (none, low, medium, high)
