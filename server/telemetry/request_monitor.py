"""Follows one request from its first byte to its last, and tells those who observe it."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from proctor.server.accounting.cost import RequestCost
from proctor.server.accounting.ledger.recorder import Recorder
from proctor.server.accounting.reservations import Reservation
from proctor.server.errors import CLIENT_GONE
from proctor.server.generation.base import (
    AdmittedRequest,
    ChoiceResult,
    RequestObserver,
    ResponseObserver,
    TextDelta,
    ToolCallDelta,
)

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""Longest wait of a response's last byte until the rest of its reservation is released."""


class RequestMonitor(ResponseObserver):
    """Follows one request, and passes what happens on to a list of observers.

    Attributes:
        status: the HTTP status that it counts under; a response that breaks off counts under
            what broke it.
        request_cost: its cost, the first of the observers.
    """

    def __init__(
        self, request_cost: RequestCost, recorder: Recorder, observers: Sequence[RequestObserver]
    ) -> None:
        """Start with a request that has just come.

        Args:
            request_cost: counts its cost.
            recorder: makes its record.
            observers: the others, in the order in which they are called after these two.
        """
        self.status = CLIENT_GONE
        self.request_cost = request_cost
        self._recorder = recorder
        self._observers = (request_cost, recorder, *observers)
        self._began = time.perf_counter()
        self._running = 0
        self._none_runs = asyncio.Event()
        self._none_runs.set()
        self._response_ended = False
        self._reservation = Reservation()

    @property
    def came(self) -> datetime:
        """When the request came."""
        return self._recorder.time

    def reserve(self, reservation: Reservation) -> None:
        """Keep what is reserved for the request, until it is settled."""
        self._reservation = reservation
        self._recorder.reserved = reservation.held

    def admitted(self, admitted: AdmittedRequest) -> None:
        """See `RequestObserver`."""
        for observer in self._observers:
            observer.admitted(admitted)

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        """See `RequestObserver`."""
        self._running += 1
        self._none_runs.clear()
        for observer in self._observers:
            observer.choice_started(choice, so_far)

    def first_token(self, choice: int, cached_tokens: int | None) -> None:
        """See `RequestObserver`."""
        for observer in self._observers:
            observer.first_token(choice, cached_tokens)

    def choice_left_engine(self, choice: int) -> None:
        """See `RequestObserver`."""
        for observer in self._observers:
            observer.choice_left_engine(choice)

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        """See `RequestObserver`."""
        for observer in self._observers:
            observer.item(item)

    def choice_finished(self, result: ChoiceResult) -> None:
        """See `RequestObserver`."""
        for observer in self._observers:
            observer.choice_finished(result)
        self._running -= 1
        if not self._running:
            self._none_runs.set()
        self._finish_if_over()

    async def settle(self) -> None:
        """See `ResponseObserver`.

        Waits until cancelled choices have finished and the database has answered, for
        `PATIENCE_SECONDS` at most. What is not settled by then is settled with the record.
        """
        if self._reservation.settled.is_set():
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._none_runs.wait()
                self._settle()
                await self._reservation.settled.wait()
        except TimeoutError:
            logger.warning("the rest of a reservation is released late")

    def close(self) -> None:
        """Note that the response has ended; cancelled choices may still have to finish."""
        self._response_ended = True
        self._reservation.leave()
        self._finish_if_over()

    def _settle(self) -> None:
        if not self._reservation.settled.is_set() and (draft := self._recorder.ended) is not None:
            self._reservation.settle(draft)
            self._recorder.reserved = self._reservation.held

    def _finish_if_over(self) -> None:
        if self._running or not self._response_ended:
            return
        self._settle()
        seconds = time.perf_counter() - self._began
        for observer in self._observers:
            observer.finished(self.status, seconds)
