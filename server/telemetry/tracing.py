"""OpenTelemetry traces of requests: their timing, budgets and usage.

Spans are created when they end, from recorded times, so that no span context has to be passed
through the streams. Spans contain no text of prompts or answers.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
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
from proctor.server.channels.deltas import Channel, TextDelta, ToolCallDelta
from proctor.server.config.tracing import TracingSettings
from proctor.server.generation.base import Admission, AdmittedRequest, ChoiceResult, RequestObserver

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PROVIDER = "proctor"
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACES_PATH = "/v1/traces"
TRACE_HEADERS = ("traceparent", "tracestate")

Exemplar = dict[str, str] | None
"""The labels of a metric's sample that link it to a trace."""

Attributes = Mapping[str, AttributeValue | None]


class Trace(RequestObserver):
    """The trace of one request; this base class creates no spans.

    Attributes:
        exemplar: the labels that link samples of metrics to the trace, or None.
    """

    exemplar: Exemplar = None

    def headers(self, scope: Scope) -> dict[str, str]:
        """Return the HTTP headers by which an engine elsewhere continues the request's trace.

        Args:
            scope: the request's ASGI scope.
        """
        received = Headers(scope=scope)
        return {name: received[name] for name in TRACE_HEADERS if name in received}


NO_TRACE = Trace()


@dataclass(slots=True)
class ChoiceTimings:
    """The times of one choice, in nanoseconds since the Unix epoch, and its result.

    Attributes:
        first_token: when its first tokens arrived, or None before that.
        first_answer: when the first text or tool call of its answer was sent, or None.
        ended: when the choice finished.
        result: its result, or None before that.
    """

    first_token: int | None = None
    first_answer: int | None = None
    ended: int = 0
    result: ChoiceResult | None = None


class SpanTrace(Trace):
    """The spans of one request.

    The children of its root span are "admission" (with a child "routing"), "queue", and for
    each choice "thinking" and "answer".
    """

    def __init__(self, tracer: Tracer, scope: Scope, request_cost: RequestCost) -> None:
        self._tracer = tracer
        self._request_cost = request_cost
        self._started = self._admitted = time.time_ns()
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
            start_time=self._started,
        )
        self._context = set_span_in_context(self._span)
        span_context = self._span.get_span_context()
        if span_context.trace_flags.sampled:
            self.exemplar = {"trace_id": f"{span_context.trace_id:032x}"}

    def headers(self, scope: Scope) -> dict[str, str]:
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, self._context)
        return carrier

    def admitted(self, admitted: AdmittedRequest) -> None:
        admission = admitted.admission
        self._admission, self._admitted = admission, time.time_ns()
        span = self._add_span(
            "admission", self._started, self._admitted, _admission_attributes(admission)
        )
        if (routing := admission.routing) is not None:
            level = {"proctor.router.level": routing.level}
            self._add_span("routing", routing.started_ns, routing.ended_ns, level, parent=span)
        self._span.update_name(f"{admitted.operation} {admitted.model}")
        self._span.set_attribute("gen_ai.operation.name", admitted.operation)
        self._span.set_attributes(_without_none(_request_attributes(admitted)))

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        if not self._timings:
            self._add_span("queue", self._admitted, time.time_ns())
        self._timings[choice] = ChoiceTimings()

    def first_token(self, choice: int) -> None:
        self._timings[choice].first_token = time.time_ns()

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        timings = self._timings[item.choice]
        if item.channel is Channel.ANSWER and timings.first_answer is None:
            timings.first_answer = time.time_ns()

    def choice_finished(self, result: ChoiceResult) -> None:
        timings = self._timings[result.choice]
        timings.ended, timings.result = time.time_ns(), result

    def finished(self, status: int, seconds: float) -> None:
        if self._admission is None:
            self._add_span("admission", self._started, time.time_ns())
        else:
            if not self._timings:
                self._add_span("queue", self._admitted, time.time_ns())
            for timings in self._timings.values():
                self._add_choice_spans(timings)
            usage = _usage_attributes(self._request_cost, self._admission)
            self._span.set_attributes(_without_none(usage))
        self._span.set_attribute("http.response.status_code", status)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _add_choice_spans(self, timings: ChoiceTimings) -> None:
        result, first_token = timings.result, timings.first_token
        if result is None or first_token is None:
            return
        # The last text of a choice may be sent shortly after the choice has finished.
        first_answer = min(timings.first_answer or timings.ended, timings.ended)
        if result.outcome.end_reason is not EndReason.DISABLED:
            self._add_span("thinking", first_token, first_answer, _thinking_attributes(result))
        if timings.first_answer is not None:
            self._add_span("answer", first_answer, timings.ended, _answer_attributes(result))

    def _add_span(
        self,
        name: str,
        started: int,
        ended: int,
        attributes: Attributes | None = None,
        parent: Span | None = None,
    ) -> Span:
        context = self._context if parent is None else set_span_in_context(parent)
        span = self._tracer.start_span(
            name, context=context, attributes=_without_none(attributes or {}), start_time=started
        )
        span.end(ended)
        return span


class Tracing:
    """Creates the traces of a server's requests."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        """Initialize tracing.

        Args:
            provider: receives the spans; None disables tracing.
        """
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("proctor")

    def start(self, scope: Scope, request_cost: RequestCost) -> Trace:
        """Start the trace of a request, within the client's trace if there is one."""
        return NO_TRACE if self._tracer is None else SpanTrace(self._tracer, scope, request_cost)

    async def aclose(self) -> None:
        """Export the remaining spans, and shut down."""
        if self._provider is not None:
            await asyncio.to_thread(self._provider.shutdown)


def open_tracing(settings: TracingSettings) -> Tracing:
    """Return tracing to the endpoint in the settings or OpenTelemetry's environment variables.

    Without an endpoint, tracing is disabled.
    """
    if not settings.endpoint and not any(map(os.environ.get, ENDPOINT_VARIABLES)):
        return Tracing()
    # Imported here, since the import is slow and tracing is disabled by default.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = settings.endpoint.rstrip("/")
    exporter = OTLPSpanExporter(endpoint + TRACES_PATH if endpoint else None)
    default = Resource.create().merge(Resource({"service.name": "proctor"}))
    resource = default.merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def _without_none(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}


def _request_attributes(admitted: AdmittedRequest) -> Attributes:
    admission = admitted.admission
    sampling = admission.jobs[0].sampling
    return {
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.conversation.id": admitted.session,
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


def _admission_attributes(admission: Admission) -> Attributes:
    resolution, enforced = admission.resolution, admission.enforced
    return {
        "proctor.tier": resolution.label,
        "proctor.source": resolution.source.value,
        "proctor.thinking.min_tokens": enforced.minimum,
        "proctor.thinking.max_tokens": admission.enforced_maximum,
        "proctor.clamped_by": admission.clamped_by,
        "gen_ai.usage.input_tokens": admission.prompt_tokens,
    }


def _thinking_attributes(result: ChoiceResult) -> Attributes:
    outcome = result.outcome
    return {
        "proctor.choice": result.choice,
        "proctor.thinking.tokens": outcome.tokens,
        "proctor.thinking.forced_tokens": sum(outcome.forced.values()),
        "proctor.thinking.continuations": outcome.continuations,
        "proctor.thinking.loops": sum(outcome.loops.values()),
        "proctor.thinking.end_reason": outcome.end_reason.value,
    }


def _answer_attributes(result: ChoiceResult) -> Attributes:
    return {"proctor.choice": result.choice, "proctor.answer.tokens": result.answer_tokens}


def _usage_attributes(request_cost: RequestCost, admission: Admission) -> Attributes:
    results = sorted(request_cost.results, key=lambda result: result.choice)
    cost = request_cost.charged_cost
    return {
        "gen_ai.response.finish_reasons": [admission.finish_reason(result) for result in results],
        "gen_ai.usage.input_tokens": admission.prompt_tokens,
        "gen_ai.usage.output_tokens": sum(result.tokens for result in results),
        "gen_ai.usage.reasoning.output_tokens": sum(result.thinking_tokens for result in results),
        "gen_ai.usage.cache_read.input_tokens": request_cost.cached_tokens,
        "proctor.cost": None if cost is None else float(cost.total),
        "proctor.currency": None if cost is None else cost.currency,
    }
