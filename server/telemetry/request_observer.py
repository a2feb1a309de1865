"""Follows one request through the gateway, for metrics, traces and the ledger."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus

from proctor.server.accounting.cost import RequestCost
from proctor.server.accounting.ledger.recorder import LedgerContext, Recorder, one_of
from proctor.server.accounting.reservations import Reservation
from proctor.server.generation.admission import Admission
from proctor.server.generation.channels import Channel, TextDelta, ToolCallDelta
from proctor.server.generation.context import ANONYMOUS
from proctor.server.generation.runner import ChoiceResult
from proctor.server.schemas.generation import Generation
from proctor.server.telemetry.metrics import Metrics, logger
from proctor.server.telemetry.tracing import Trace

UNRESOLVED = "unresolved"
"""The tier of a request that was refused before it had one."""


PATIENCE_SECONDS = 5.0
"""That the last of an answer waits for what it did not take to be given back to its key."""


CLIENT_GONE = 499
"""The status of a request whose client went away, as nginx has it."""


class RequestObserver:
    """Follows one request through the gateway.

    Attributes:
        status: the HTTP status that it counts under; an answer that breaks off
            counts under what broke it.
    """

    def __init__(
        self, metrics: Metrics, ledger_context: LedgerContext, request_id: str, trace: Trace
    ) -> None:
        self.status = CLIENT_GONE
        self._metrics = metrics
        self._entry = Recorder(ledger_context, request_id)
        self._trace = trace
        self._tier, self._key = UNRESOLVED, ANONYMOUS
        self._began = time.perf_counter()
        self._admitted_at: float | None = None
        self._running = 0
        self._none_runs = asyncio.Event()
        self._none_runs.set()
        self._answered = False
        self._hold = Reservation()
        metrics.in_flight.inc()

    @property
    def came(self) -> datetime:
        """When the request came."""
        return self._entry.time

    @property
    def request_cost(self) -> RequestCost:
        """What the request costs."""
        return self._entry.request_cost

    def admitted(
        self,
        name: str,
        model: str,
        asked: Generation,
        admission: Admission,
        key: str,
        hold: Reservation,
    ) -> None:
        """Note what was let in.

        Args:
            name: the completion's id.
            model: the model's name.
            asked: what the client sent.
            admission: what it was granted.
            key: whose it is, empty if nobody says.
            hold: what is held back for it.
        """
        self._hold = hold
        self._admitted_at = time.perf_counter()
        self._tier, self._key = admission.resolution.label, key
        self._entry.admitted(name, model, asked, admission, key, lambda: hold.held)
        self._trace.admitted(name, model, asked, admission)
        self._metrics.routed.labels(self._tier, admission.resolution.source.value).inc()
        if admission.clamped_by:
            self._metrics.clamped.inc()

    def begin(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        """See `Account`."""
        self._running += 1
        self._none_runs.clear()
        self.request_cost.begin(choice, so_far)
        self._trace.began(choice)
        if self._admitted_at is not None:
            self._metrics.queue_seconds.observe(time.perf_counter() - self._admitted_at)
            self._admitted_at = None

    def prefilled(self, choice: int, cached: int | None) -> None:
        """See `Account`."""
        self.request_cost.prefilled(choice, cached)
        self._trace.prefilled(choice)

    def stop(self, choice: int) -> None:
        """See `Account`."""
        self.request_cost.stop(choice)

    def saw(self, item: TextDelta | ToolCallDelta) -> None:
        """Note that there is something to tell."""
        self._entry.saw(item)
        if item.channel is Channel.ANSWER:
            self._trace.answers(item.choice)
        first = self._entry.first
        if item.channel not in first:
            first[item.channel] = time.perf_counter() - self._began
            seconds, seen = first[item.channel], self._metrics.first[item.channel]
            seen.observe(seconds, self._trace.exemplar)

    def record(self, end: ChoiceResult) -> None:
        """See `Account`."""
        self.request_cost.record(end)
        self._trace.ended(end)
        self._metrics.record(self._tier, end, self._trace.exemplar)
        self._running -= 1
        if not self._running:
            self._none_runs.set()
        self._close_if_over()

    async def settle(self) -> None:
        """Give back what was held for the request and not taken; before its last byte is sent.

        Choices that were cancelled are waited for, and then the database, for as long
        as patience lasts. What is not settled then is when the request's row is written.
        """
        if self._hold.settled.is_set():
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._none_runs.wait()
                self._settle()
                await self._hold.settled.wait()
        except TimeoutError:
            logger.warning("what a request did not take is given back late")

    def close(self) -> None:
        """Note that nothing more is sent; choices that were cancelled may still be ending."""
        self._answered = True
        self._hold.leave()
        self._close_if_over()

    def _settle(self) -> None:
        if not self._hold.settled.is_set() and (draft := self._entry.ended) is not None:
            self._hold.settle(draft)

    def _close_if_over(self) -> None:
        if self._running or not self._answered:
            return
        seconds = time.perf_counter() - self._began
        reason = one_of(end.outcome.end_reason.value for end in self.request_cost.ends)
        self._metrics.requests.labels(self._tier, reason, str(self.status)).inc()
        self._metrics.request_seconds.labels(self._tier).observe(seconds, self._trace.exemplar)
        self._metrics.in_flight.dec()
        if (cost := self._entry.cost) is not None:
            answered = self.status == HTTPStatus.OK
            self._metrics.paid(self._tier, self._key, cost, answered, self._trace.exemplar)
        self._settle()
        self._entry.close(self.status, seconds)
        self._trace.close(self.status, self.request_cost)
