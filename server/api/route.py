"""`POST /v1/route`: explains the budget that a chat request would get, without generating."""

import math

from fastapi import Request, Response

from proctor.router import LEVELS
from proctor.router.outcomes.policy import Choice, Rule
from proctor.server.accounting.cost import PriceModel
from proctor.server.accounting.estimates import estimate
from proctor.server.accounting.sessions import Sessions
from proctor.server.accounting.usage_history import UsageHistory
from proctor.server.admission.controller import AdmissionController
from proctor.server.admission.routing import RoutedChoice
from proctor.server.api.bodies import BodyReader
from proctor.server.api.generation.responder import with_deadline
from proctor.server.config.prices import Prices
from proctor.server.config.settings import Settings
from proctor.server.engines.served_models import ServedModels
from proctor.server.generation.base import Admission, RoutingResult
from proctor.server.generation.context import RequestContext
from proctor.server.generation.resolution import Resolution
from proctor.server.pricing import Cost
from proctor.server.schemas.parsing import parse_chat
from proctor.server.schemas.responses import (
    Estimate,
    OutcomeReport,
    RouteReport,
    RouterReport,
    as_json,
)
from proctor.server.sessions.limits import UNLIMITED
from proctor.server.sessions.names import read_session

MAX_SIGNALS = 5
"""The number of the strongest signals to return."""

WEIGHT_DIGITS = 3


class RouteEndpoint:
    """The endpoint of `POST /v1/route`."""

    def __init__(
        self,
        settings: Settings,
        body_reader: BodyReader,
        models: ServedModels,
        admission_controller: AdmissionController,
        sessions: Sessions,
        price_model: PriceModel,
        usage_history: UsageHistory,
    ) -> None:
        self._settings = settings
        self._body_reader = body_reader
        self._models = models
        self._admission_controller = admission_controller
        self._sessions = sessions
        self._price_model = price_model
        self._usage_history = usage_history

    async def __call__(self, request: Request) -> Response:
        """Return the budget of a chat request, and an estimate of its cost.

        Raises:
            ApiError: if the request would be rejected.
            BudgetError: if its budget could not be enforced.
        """
        context = RequestContext.of(request, self._settings.limits)
        chat_request = parse_chat(await self._body_reader.read(request))
        requested = read_session(request.headers, chat_request.session, chat_request.session_names)
        session = self._sessions.open(requested, context.key)
        engine = await self._models.ready(chat_request.model)
        allowance = UNLIMITED if session is None else await self._sessions.allowance(session)
        admitting = self._admission_controller.admit(
            chat_request, engine, "dry-run", context.key, allowance
        )
        admission = await with_deadline(request, context, admitting)
        cost = estimate(admission, self._price_model, self._usage_history)
        return as_json(_to_report(admission, cost), chat_request.ignored_header())


def _to_report(admission: Admission, cost: Estimate | None) -> RouteReport:
    resolution, enforced = admission.resolution, admission.enforced
    tier, budget, routing = resolution.tier, resolution.budget, admission.routing
    return {
        "model": admission.engine.model.name,
        "tier": None if tier is None else tier.name,
        "source": resolution.source,
        "field": resolution.field,
        "budget": {
            "min_tokens": enforced.minimum,
            "max_tokens": admission.enforced_maximum,
            "continuations": enforced.continuations,
            "on_loop": budget.on_loop,
            "landing": budget.landing,
        },
        "clamped_by": admission.clamped_by,
        "router": None if routing is None else _to_router_report(routing, resolution.raised_by),
        "prompt_tokens": admission.prompt_tokens,
        "cost": cost,
    }


def format_text(resolution: Resolution, routing: RoutingResult, prices: Prices | None) -> str:
    """Return a budget and its origin as text, for `proctor route`."""
    budget, prediction = resolution.budget, routing.prediction
    maximum = "no maximum" if budget.max_tokens is None else f"at most {budget.max_tokens} tokens"
    model = None if resolution.tier is None else resolution.tier.model
    probabilities = zip(LEVELS, prediction.probabilities, strict=True)
    lines = [
        f"tier      {resolution.label} (decided by the {resolution.source.value})",
        *([] if model is None else [f"model     {model}"]),
        f"thinking  at least {budget.min_tokens}, {maximum}",
        f"level     {routing.level}: "
        + ", ".join(f"{level} {probability:.0%}" for level, probability in probabilities),
    ]
    if prices is not None and budget.max_tokens is not None:
        low, high = (
            f"{Cost.of(prices, 0, tokens, 0).thinking:f}"
            for tokens in (budget.min_tokens, budget.max_tokens)
        )
        lines.append(f"cost      {low} to {high} {prices.currency} for the thinking")
    if isinstance(routing, RoutedChoice):
        lines += _outcome_lines(routing.choice)
    signals = prediction.signals[:MAX_SIGNALS]
    lines += [f"  {signal.weight:+.2f}  {signal.name}" for signal in signals]
    if resolution.clamped_by:
        lines.append(f"clamped by {', '.join(resolution.clamped_by)}")
    return "\n".join(lines)


def _to_router_report(routing: RoutingResult, raised_by: str | None) -> RouterReport:
    prediction = routing.prediction
    choice = routing.choice if isinstance(routing, RoutedChoice) else None
    return {
        "level": routing.level,
        "tier": None if choice is None else choice.tier,
        "raised_by": raised_by,
        "rule": Rule.COSTS if choice is None else choice.rule,
        "error_cost": None if choice is None else _finite(choice.error_cost),
        "tiers": None if choice is None else _to_outcomes(choice),
        "probabilities": {
            level: round(probability, WEIGHT_DIGITS)
            for level, probability in zip(LEVELS, prediction.probabilities, strict=True)
        },
        "signals": [
            {"name": signal.name, "weight": round(signal.weight, WEIGHT_DIGITS)}
            for signal in prediction.signals[:MAX_SIGNALS]
        ],
    }


def _to_outcomes(choice: Choice) -> dict[str, OutcomeReport] | None:
    """Return what an outcome model expects of each tier."""
    if choice.forecast is None:
        return None
    price = _finite(choice.error_cost)
    forecasts = zip(choice.forecast.right.tolist(), choice.forecast.tokens.tolist(), strict=True)
    return {
        tier: {
            "right": round(right, WEIGHT_DIGITS),
            "thinking_tokens": round(tokens, 1),
            "cost": None if price is None else round(price * (1.0 - right) + tokens, 1),
        }
        for tier, (right, tokens) in zip(choice.tiers, forecasts, strict=True)
    }


def _outcome_lines(choice: Choice) -> list[str]:
    outcomes = _to_outcomes(choice) or {}
    head = [f"rule      {choice.rule}"]
    if choice.error_cost is not None:
        head = [f"rule      {choice.rule}, a wrong answer costs {choice.error_cost:.0f} tokens"]
    return head + [
        f"  {tier}: {report['right']:.1%} right, {report['thinking_tokens']:.0f} thinking tokens"
        + ("" if report["cost"] is None else f", cost {report['cost']:.0f}")
        for tier, report in outcomes.items()
    ]


def _finite(number: float | None) -> float | None:
    return None if number is None or math.isinf(number) else round(number, 1)
