"""Records one request in the metrics."""

import time
from collections.abc import Callable
from http import HTTPStatus

from proctor.server.accounting.cost import RequestCost
from proctor.server.accounting.ledger.recorder import shared_reason
from proctor.server.channels.deltas import Channel, TextDelta, ToolCallDelta
from proctor.server.generation.base import (
    AdmittedRequest,
    ChoiceResult,
    RequestObserver,
    VoteResult,
)
from proctor.server.generation.context import ANONYMOUS
from proctor.server.telemetry.metrics import Metrics
from proctor.server.telemetry.tracing import Trace

UNRESOLVED = "unresolved"
"""The tier of a request that was rejected before its tier was known."""


class RequestMetrics(RequestObserver):
    """Records one request in the gateway's metrics."""

    def __init__(self, metrics: Metrics, request_cost: RequestCost, trace: Trace) -> None:
        self._metrics = metrics
        self._request_cost = request_cost
        self._trace = trace
        self._tier, self._key = UNRESOLVED, ANONYMOUS
        self._started = time.perf_counter()
        self._admitted_at: float | None = None
        self._prompt_tokens = 0
        self._seen_channels: set[Channel] = set()
        self._session: tuple[str, str] | None = None
        metrics.in_flight.inc()

    def admitted(self, admitted: AdmittedRequest) -> None:
        resolution = admitted.admission.resolution
        self._admitted_at = time.perf_counter()
        self._prompt_tokens = admitted.admission.prompt_tokens
        self._tier, self._key = resolution.label, admitted.key
        self._metrics.routed.labels(self._tier, resolution.source.value).inc()
        self._metrics.count_model(admitted.model)
        if admitted.admission.clamped_by:
            self._metrics.clamped.inc()
        for limit in admitted.admission.reduced_by:
            self._metrics.session_reduced.labels(limit.value).inc()
        if admitted.session is not None:
            self._session = (admitted.key, admitted.session)
            self._metrics.count_session(self._session, 1)

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        if self._admitted_at is not None:
            self._metrics.queue_seconds.observe(time.perf_counter() - self._admitted_at)
            self._admitted_at = None

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        if item.channel not in self._seen_channels:
            self._seen_channels.add(item.channel)
            seconds = time.perf_counter() - self._started
            self._metrics.time_to_first[item.channel].observe(seconds, self._trace.exemplar)

    def choice_finished(self, result: ChoiceResult) -> None:
        self._metrics.record_choice(self._tier, result, self._trace.exemplar)

    def voted(self, votes: VoteResult) -> None:
        self._metrics.votes.labels(votes.method.value).inc()
        self._metrics.stopped_chains.labels(votes.method.value).inc(votes.stopped)

    def finished(self, status: int, seconds: float) -> None:
        metrics, exemplar = self._metrics, self._trace.exemplar
        reason = shared_reason(
            result.outcome.end_reason.value for result in self._request_cost.choices
        )
        metrics.requests.labels(self._tier, reason, str(status)).inc()
        metrics.request_seconds.labels(self._tier).observe(seconds, exemplar)
        metrics.in_flight.dec()
        if self._request_cost.results:
            metrics.prompt_tokens.labels(self._tier).inc(self._prompt_tokens)
            cached_tokens = self._request_cost.cached_tokens or 0
            metrics.cached_prompt_tokens.labels(self._tier).inc(cached_tokens)
        if self._session is not None:
            metrics.count_session(self._session, -1)
        if (cost := self._request_cost.charged_cost) is not None:
            answered = status == HTTPStatus.OK
            metrics.record_cost(self._tier, self._key, cost, answered, exemplar)
