"""Estimates of what a request will cost."""

from collections.abc import Sequence
from decimal import Decimal
from statistics import mean

from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.usage_history import UsageHistory, UsageSample
from proctor.server.config.prices import Prices
from proctor.server.generation.base import Admission
from proctor.server.pricing import Cost
from proctor.server.schemas.responses import Estimate


def estimate(
    admission: Admission, price_model: PriceModel, usage_history: UsageHistory
) -> Estimate | None:
    """Return the minimum, expected and maximum cost of a request, or None if there are no prices.

    With a price of compute time, nothing bounds the cost in advance, so the minimum and
    the maximum are those of recent requests of the tier. Unknown values are None.
    """
    model = admission.engine.model.name
    price_model = price_model.of(model)
    samples = usage_history.samples(model, admission.resolution.label)
    if price_model.prices is not None:
        return _by_tokens(admission, price_model.prices, samples)
    if price_model.compute is None:
        return None
    costs = [sample.cost for sample in samples if sample.cost is not None]
    if not costs:
        return _to_json(price_model.compute.currency, None, None, None)
    return _to_json(price_model.compute.currency, min(costs), mean(costs), max(costs))


def _by_tokens(admission: Admission, prices: Prices, samples: Sequence[UsageSample]) -> Estimate:
    prompt, jobs = admission.prompt_tokens, len(admission.jobs)
    max_thinking, max_tokens = admission.total_thinking_tokens, admission.max_tokens
    min_thinking = jobs * admission.enforced.minimum

    def cost(thinking: int, answer: int, cached: int = 0) -> Decimal:
        return Cost.of(prices, prompt, thinking, answer, cached).total

    # The most expensive response uses all of the thinking budget if thinking costs more than the
    # answer, else as little as possible.
    worst_thinking = max_thinking if prices.thinking > prices.answer else min_thinking
    minimum = cost(min_thinking, jobs, prompt)
    maximum = cost(worst_thinking, max_tokens - worst_thinking)
    if not samples:
        return _to_json(prices.currency, minimum, None, maximum)
    expected = cost(
        jobs * round(mean(sample.thinking for sample in samples)),
        jobs * round(mean(sample.answer for sample in samples)),
    )
    return _to_json(prices.currency, minimum, min(max(minimum, expected), maximum), maximum)


def _to_json(
    currency: str, minimum: Decimal | None, expected: Decimal | None, maximum: Decimal | None
) -> Estimate:
    least, mean_cost, most = (
        None if cost is None else float(cost) for cost in (minimum, expected, maximum)
    )
    return {"currency": currency, "least": least, "expected": mean_cost, "most": most}
