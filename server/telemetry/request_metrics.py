"""Counts one request in the gateway's metrics."""

import time
from collections.abc import Callable
from http import HTTPStatus

from proctor.server.accounting.cost import RequestCost
from proctor.server.accounting.ledger.recorder import one_of
from proctor.server.generation.base import (
    AdmittedRequest,
    Channel,
    ChoiceResult,
    RequestObserver,
    TextDelta,
    ToolCallDelta,
)
from proctor.server.generation.context import ANONYMOUS
from proctor.server.telemetry.metrics import Metrics
from proctor.server.telemetry.tracing import Trace

UNRESOLVED = "unresolved"
"""The tier of a request that was refused before it had one."""


class RequestMetrics(RequestObserver):
    """Counts one request in the gateway's metrics."""

    def __init__(self, metrics: Metrics, request_cost: RequestCost, trace: Trace) -> None:
        self._metrics = metrics
        self._request_cost = request_cost
        self._trace = trace
        self._tier, self._key = UNRESOLVED, ANONYMOUS
        self._began = time.perf_counter()
        self._queued_at: float | None = None
        self._seen: set[Channel] = set()
        metrics.in_flight.inc()

    def admitted(self, admitted: AdmittedRequest) -> None:
        """See `RequestObserver`."""
        resolution = admitted.admission.resolution
        self._queued_at = time.perf_counter()
        self._tier, self._key = resolution.label, admitted.key
        self._metrics.routed.labels(self._tier, resolution.source.value).inc()
        if admitted.admission.clamped_by:
            self._metrics.clamped.inc()

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        """See `RequestObserver`."""
        if self._queued_at is not None:
            self._metrics.queue_seconds.observe(time.perf_counter() - self._queued_at)
            self._queued_at = None

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        """See `RequestObserver`."""
        if item.channel not in self._seen:
            self._seen.add(item.channel)
            seconds = time.perf_counter() - self._began
            self._metrics.first[item.channel].observe(seconds, self._trace.exemplar)

    def choice_finished(self, result: ChoiceResult) -> None:
        """See `RequestObserver`."""
        self._metrics.record(self._tier, result, self._trace.exemplar)

    def finished(self, status: int, seconds: float) -> None:
        """See `RequestObserver`."""
        metrics, exemplar = self._metrics, self._trace.exemplar
        reason = one_of(end.outcome.end_reason.value for end in self._request_cost.ends)
        metrics.requests.labels(self._tier, reason, str(status)).inc()
        metrics.request_seconds.labels(self._tier).observe(seconds, exemplar)
        metrics.in_flight.dec()
        if (cost := self._request_cost.charged) is not None:
            answered = status == HTTPStatus.OK
            metrics.paid(self._tier, self._key, cost, answered, exemplar)
