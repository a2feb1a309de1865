"""`POST /v1/route`: what a chat request would get, and why; nothing is generated."""

from typing import Any

from fastapi import Request, Response

from proctor.router import LEVELS
from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.estimates import estimate
from proctor.server.accounting.usage_history import UsageHistory
from proctor.server.admission.controller import AdmissionController
from proctor.server.api.generation.responder import in_time
from proctor.server.config.prices import Prices
from proctor.server.config.settings import Settings
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.generation.base import RoutingResult
from proctor.server.generation.context import RequestContext
from proctor.server.generation.resolution import Resolution
from proctor.server.pricing import Cost
from proctor.server.schemas.parsing import parse_chat
from proctor.server.schemas.responses import as_json
from proctor.server.transport.bodies import BodyReader

STRONGEST = 5
"""Signals that are shown."""

WEIGHT_DIGITS = 3


class RouteEndpoint:
    """The endpoint."""

    def __init__(
        self,
        settings: Settings,
        bodies: BodyReader,
        host: EngineSupervisor,
        admission_controller: AdmissionController,
        price_model: PriceModel,
        recent: UsageHistory,
    ) -> None:
        self._settings = settings
        self._bodies = bodies
        self._host = host
        self._admission_controller = admission_controller
        self._price_model = price_model
        self._recent = recent

    async def __call__(self, request: Request) -> Response:
        """Route one request.

        Raises:
            ApiError: if it would be refused.
            BudgetError: if its budget could not be enforced.
        """
        context = RequestContext.of(request, self._settings.limits)
        asked = parse_chat(await self._bodies.read(request))
        engine = await self._host.ready()
        admitting = self._admission_controller.admit(asked, engine, "dry-run", context.key)
        admission = await in_time(request, context, admitting)
        shown = describe(admission.resolution, admission.routing)
        enforced = admission.enforced
        shown["budget"] |= {
            "min_tokens": enforced.minimum,
            "max_tokens": enforced.maximum,
            "continuations": enforced.continuations,
        }
        shown["clamped_by"] = admission.clamped_by
        shown["prompt_tokens"] = admission.prompt_tokens
        shown["cost"] = estimate(admission, self._price_model, self._recent)
        return as_json(shown, asked.ignored_header())


def describe(resolution: Resolution, routed: RoutingResult | None) -> dict[str, Any]:
    """A budget and where it came from, as JSON; without what only the engine knows."""
    budget, tier = resolution.budget, resolution.tier
    return {
        "tier": None if tier is None else tier.name,
        "source": resolution.source.value,
        "field": resolution.field,
        "budget": {
            "min_tokens": budget.min_tokens,
            "max_tokens": budget.max_tokens,
            "continuations": budget.continuations,
            "on_loop": budget.on_loop.value,
            "landing": budget.landing.value,
        },
        "clamped_by": resolution.clamped_by,
        "router": None if routed is None else _explain(routed),
    }


def in_words(resolution: Resolution, routed: RoutingResult, prices: Prices | None) -> str:
    """The same, for people."""
    budget, verdict = resolution.budget, routed.prediction
    most = "no cap" if budget.max_tokens is None else f"at most {budget.max_tokens}"
    chances = zip(LEVELS, verdict.probabilities, strict=True)
    lines = [
        f"tier      {resolution.label} (decided by the {resolution.source.value})",
        f"thinking  at least {budget.min_tokens}, {most} tokens",
        f"level     {routed.level}: "
        + ", ".join(f"{level} {chance:.0%}" for level, chance in chances),
    ]
    if prices is not None and budget.max_tokens is not None:
        spans = [Cost.of(prices, 0, n, 0).thinking for n in (budget.min_tokens, budget.max_tokens)]
        least, dearest = (f"{cost:f}" for cost in spans)
        lines.append(f"cost      {least} to {dearest} {prices.currency} for the thinking")
    shown = verdict.signals[:STRONGEST]
    lines += [f"  {signal.weight:+.2f}  {signal.name}" for signal in shown]
    if resolution.clamped_by:
        lines.append(f"clamped by {', '.join(resolution.clamped_by)}")
    return "\n".join(lines)


def _explain(routed: RoutingResult) -> dict[str, Any]:
    verdict = routed.prediction
    return {
        "level": routed.level,
        "probabilities": {
            level: round(chance, WEIGHT_DIGITS)
            for level, chance in zip(LEVELS, verdict.probabilities, strict=True)
        },
        "signals": [
            {"name": signal.name, "weight": round(signal.weight, WEIGHT_DIGITS)}
            for signal in verdict.signals[:STRONGEST]
        ],
    }
