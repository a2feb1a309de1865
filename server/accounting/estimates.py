"""What an answer will cost, told before it is given."""

from collections.abc import Sequence
from decimal import Decimal
from statistics import mean
from typing import Any

from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.usage_history import UsageHistory, UsageSample
from proctor.server.config.prices import Prices
from proctor.server.generation.base import Admission
from proctor.server.pricing import Cost


def estimate(
    admission: Admission, price_model: PriceModel, recent: UsageHistory
) -> dict[str, Any] | None:
    """What a request will probably cost, at least and at most; None where no price is known.

    Where the machine has the price nothing bounds the cost beforehand, so its
    range is that of the tier's last answers. What is not known is null.
    """
    spent = recent.samples(admission.resolution.label)
    if price_model.prices is not None:
        return _by_tokens(admission, price_model.prices, spent)
    if price_model.compute is None:
        return None
    costs = [each.cost for each in spent if each.cost is not None]
    if not costs:
        return _shown(price_model.compute.currency, None, None, None)
    return _shown(price_model.compute.currency, min(costs), mean(costs), max(costs))


def _by_tokens(
    admission: Admission, prices: Prices, spent: Sequence[UsageSample]
) -> dict[str, Any]:
    job, prompt, choices = admission.jobs[0], admission.prompt_tokens, len(admission.jobs)
    thinking, tokens = job.budget.maximum or 0, job.sampling.max_tokens

    def cost(thinks: int, answers: int, cached: int = 0) -> Decimal:
        return Cost.of(prices, prompt, choices * thinks, choices * answers, cached).total

    # The dearest answer thinks as long as it may where thinking is dearer, else as little.
    dearest = thinking if prices.thinking > prices.answer else job.budget.minimum
    least, most = cost(job.budget.minimum, 1, prompt), cost(dearest, tokens - dearest)
    if not spent:
        return _shown(prices.currency, least, None, most)
    expected = cost(
        round(mean(each.thinking for each in spent)), round(mean(each.answer for each in spent))
    )
    return _shown(prices.currency, least, min(max(least, expected), most), most)


def _shown(
    currency: str, least: Decimal | None, expected: Decimal | None, most: Decimal | None
) -> dict[str, Any]:
    told = {"least": least, "expected": expected, "most": most}
    costs = {name: None if cost is None else float(cost) for name, cost in told.items()}
    return {"currency": currency, **costs}
