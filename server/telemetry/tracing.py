"""Traces of requests for OpenTelemetry: where the time of each went, and what it was granted.

Spans are made when they end, from times that were noted on the way, so that nothing is
carried through the streams. None of them holds what was said.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.datastructures import Headers
from starlette.types import Scope

from proctor.budget import EndReason
from proctor.server.accounting.cost import RequestCost
from proctor.server.config.tracing import TracingSettings
from proctor.server.generation.base import (
    Admission,
    AdmittedRequest,
    Channel,
    ChoiceResult,
    RequestObserver,
    TextDelta,
    ToolCallDelta,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PROVIDER = "proctor"
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACES_PATH = "/v1/traces"

Exemplar = dict[str, str] | None
"""What a metric's sample names, so that a trace is found from there."""

Attributes = Mapping[str, AttributeValue | None]


class Trace(RequestObserver):
    """Traces one request; this one leaves no trace."""

    exemplar: Exemplar = None


NO_TRACE = Trace()


@dataclass(slots=True)
class ChoiceTimings:
    """One choice's times, in nanoseconds since 1970, and how it ended."""

    prefilled: int | None = None
    answers: int | None = None
    ended: int = 0
    end: ChoiceResult | None = None


class SpanTrace(Trace):
    """One request's spans: admission with routing in it, queue, and each choice's two."""

    def __init__(self, tracer: Tracer, scope: Scope, request_cost: RequestCost) -> None:
        self._tracer = tracer
        self._request_cost = request_cost
        self._began = self._admitted = time.time_ns()
        self._admission: Admission | None = None
        self._timings: dict[int, ChoiceTimings] = {}
        path, method = scope["path"], scope["method"]
        self._span = tracer.start_span(
            f"{method} {path}",
            context=TraceContextTextMapPropagator().extract(Headers(scope=scope)),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "http.route": path,
                "url.path": path,
                "url.scheme": scope["scheme"],
            },
            start_time=self._began,
        )
        self._context = set_span_in_context(self._span)
        told = self._span.get_span_context()
        if told.trace_flags.sampled:
            self.exemplar = {"trace_id": f"{told.trace_id:032x}"}

    def admitted(self, admitted: AdmittedRequest) -> None:
        """See `RequestObserver`."""
        admission = admitted.admission
        self._admission, self._admitted = admission, time.time_ns()
        admitting = self._told("admission", self._began, self._admitted, _granted(admission))
        if (routed := admission.routing) is not None:
            routing = {"proctor.router.level": routed.level}
            self._told("routing", routed.started_ns, routed.ended_ns, routing, within=admitting)
        self._span.update_name(f"{admitted.operation} {admitted.model}")
        self._span.set_attribute("gen_ai.operation.name", admitted.operation)
        self._span.set_attributes(_known(_asked(admitted)))

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        """See `RequestObserver`."""
        if not self._timings:
            self._told("queue", self._admitted, time.time_ns())
        self._timings[choice] = ChoiceTimings()

    def first_token(self, choice: int, cached_tokens: int | None) -> None:
        """See `RequestObserver`."""
        self._timings[choice].prefilled = time.time_ns()

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        """See `RequestObserver`."""
        timings = self._timings[item.choice]
        if item.channel is Channel.ANSWER and timings.answers is None:
            timings.answers = time.time_ns()

    def choice_finished(self, result: ChoiceResult) -> None:
        """See `RequestObserver`."""
        timings = self._timings[result.choice]
        timings.ended, timings.end = time.time_ns(), result

    def finished(self, status: int, seconds: float) -> None:
        """See `RequestObserver`."""
        if self._admission is None:
            self._told("admission", self._began, time.time_ns())
        else:
            if not self._timings:
                self._told("queue", self._admitted, time.time_ns())
            for timings in self._timings.values():
                self._tell(timings)
            self._span.set_attributes(_known(_used(self._request_cost, self._admission)))
        self._span.set_attribute("http.response.status_code", status)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _tell(self, timings: ChoiceTimings) -> None:
        end, first = timings.end, timings.prefilled
        if end is None or first is None:
            return
        # What comes last may be passed on a moment after the choice's own end.
        answers = min(timings.answers or timings.ended, timings.ended)
        if end.outcome.end_reason is not EndReason.DISABLED:
            self._told("thinking", first, answers, _thinking(end))
        if timings.answers is not None:
            self._told("answer", answers, timings.ended, _answer(end))

    def _told(
        self,
        name: str,
        began: int,
        ended: int,
        attributes: Attributes | None = None,
        within: Span | None = None,
    ) -> Span:
        context = self._context if within is None else set_span_in_context(within)
        span = self._tracer.start_span(
            name, context=context, attributes=_known(attributes or {}), start_time=began
        )
        span.end(ended)
        return span


class Tracing:
    """Makes the traces of a server."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        """Begin with no trace.

        Args:
            provider: where spans go; None makes no traces.
        """
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("proctor")

    def begin(self, scope: Scope, request_cost: RequestCost) -> Trace:
        """The trace of a request that has just come; it may go on a client's."""
        return NO_TRACE if self._tracer is None else SpanTrace(self._tracer, scope, request_cost)

    async def aclose(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            await asyncio.to_thread(self._provider.shutdown)


def open_tracing(settings: TracingSettings) -> Tracing:
    """What the settings or OpenTelemetry's own variables ask for; no traces without an endpoint."""
    if not settings.endpoint and not any(map(os.environ.get, ENDPOINT_VARIABLES)):
        return Tracing()
    # Imported here: it takes its time, and most servers trace nothing.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = settings.endpoint.rstrip("/")
    exporter = OTLPSpanExporter(endpoint + TRACES_PATH if endpoint else None)
    named = Resource.create().merge(Resource({"service.name": "proctor"}))
    resource = named.merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def _known(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}


def _asked(admitted: AdmittedRequest) -> Attributes:
    admission = admitted.admission
    sampling = admission.jobs[0].sampling
    return {
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": admitted.requested_model,
        "gen_ai.request.choice.count": len(admission.jobs),
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.request.stream": admitted.stream,
        "gen_ai.response.id": admitted.id,
        "gen_ai.response.model": admitted.model,
    }


def _granted(admission: Admission) -> Attributes:
    resolution, enforced = admission.resolution, admission.enforced
    return {
        "proctor.tier": resolution.label,
        "proctor.source": resolution.source.value,
        "proctor.thinking.min_tokens": enforced.minimum,
        "proctor.thinking.max_tokens": enforced.maximum,
        "proctor.clamped_by": admission.clamped_by,
        "gen_ai.usage.input_tokens": admission.prompt_tokens,
    }


def _thinking(end: ChoiceResult) -> Attributes:
    outcome = end.outcome
    return {
        "proctor.choice": end.choice,
        "proctor.thinking.tokens": outcome.tokens,
        "proctor.thinking.forced_tokens": sum(outcome.forced.values()),
        "proctor.thinking.continuations": outcome.continuations,
        "proctor.thinking.loops": sum(outcome.loops.values()),
        "proctor.thinking.end_reason": outcome.end_reason.value,
    }


def _answer(end: ChoiceResult) -> Attributes:
    return {"proctor.choice": end.choice, "proctor.answer.tokens": end.answer_tokens}


def _used(request_cost: RequestCost, admission: Admission) -> Attributes:
    ends: Sequence[ChoiceResult] = sorted(request_cost.ends, key=lambda end: end.choice)
    cost = request_cost.charged
    return {
        "gen_ai.response.finish_reasons": [
            admission.finish_reason(end.finish, end.calls) for end in ends
        ],
        "gen_ai.usage.input_tokens": admission.prompt_tokens,
        "gen_ai.usage.output_tokens": sum(end.tokens for end in ends),
        "gen_ai.usage.reasoning.output_tokens": sum(end.outcome.tokens for end in ends),
        "gen_ai.usage.cache_read.input_tokens": request_cost.cached_tokens,
        "proctor.cost": None if cost is None else float(cost.total),
        "proctor.currency": None if cost is None else cost.currency,
    }
