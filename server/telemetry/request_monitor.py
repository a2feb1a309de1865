"""Follows one request from its first byte to the last of its response, for its observers."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from proctor.server.accounting.cost import RequestCost
from proctor.server.accounting.ledger.recorder import Recorder
from proctor.server.accounting.reservations import Reservation
from proctor.server.channels.deltas import TextDelta, ToolCallDelta
from proctor.server.errors import CLIENT_GONE
from proctor.server.generation.base import (
    AdmittedRequest,
    ChoiceResult,
    RequestObserver,
    ResponseObserver,
    VoteResult,
)

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""The maximum delay of a response's last byte, until its reservation is settled."""


class RequestMonitor(ResponseObserver):
    """Follows one request, and forwards its events to a list of observers.

    Attributes:
        status: the HTTP status that the request counts under; of a response that breaks off,
            that of the error.
        headers: HTTP headers for an engine elsewhere, such as the trace's.
        follows_items: whether `item` is to be called for every item, not only for the first of a
            choice's channel.
        request_cost: the cost of the request, which is the first observer.
    """

    def __init__(
        self,
        request_cost: RequestCost,
        recorder: Recorder,
        observers: Sequence[RequestObserver],
        headers: Mapping[str, str],
    ) -> None:
        """Initialize the monitor of a request that has just been received.

        Args:
            request_cost: the cost of the request.
            recorder: builds the record of the request.
            observers: further observers, which are called after these two, in this order.
            headers: HTTP headers for an engine elsewhere.
        """
        self.status = CLIENT_GONE
        self.headers = headers
        self.follows_items = recorder.records_texts
        self.request_cost = request_cost
        self._recorder = recorder
        self._observers = (request_cost, recorder, *observers)
        self._started = time.perf_counter()
        self._running = 0
        self._all_finished = asyncio.Event()
        self._all_finished.set()
        self._parts = 1
        self._reservation = Reservation()

    @property
    def received_at(self) -> datetime:
        """When the request was received."""
        return self._recorder.received_at

    def reserve(self, reservation: Reservation) -> None:
        """Set the reservation of the request, which is settled when it ends."""
        self._reservation = reservation
        self._recorder.reserved = reservation.amount

    def admitted(self, admitted: AdmittedRequest) -> None:
        for observer in self._observers:
            observer.admitted(admitted)

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        self._running += 1
        self._all_finished.clear()
        for observer in self._observers:
            observer.choice_started(choice, so_far)

    def first_token(self, choice: int) -> None:
        for observer in self._observers:
            observer.first_token(choice)

    def prompt_cached(self, choice: int, tokens: int) -> None:
        for observer in self._observers:
            observer.prompt_cached(choice, tokens)

    def choice_left_engine(self, choice: int) -> None:
        for observer in self._observers:
            observer.choice_left_engine(choice)

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        for observer in self._observers:
            observer.item(item)

    def choice_finished(self, result: ChoiceResult) -> None:
        for observer in self._observers:
            observer.choice_finished(result)
        self._running -= 1
        if not self._running:
            self._all_finished.set()
        self._finish_if_done()

    def voted(self, votes: VoteResult) -> None:
        for observer in self._observers:
            observer.voted(votes)

    async def settle(self) -> None:
        """Settle the reservation, before the last byte of the response is sent.

        Waits until cancelled choices have finished and the database has responded, for
        `PATIENCE_SECONDS` at most. After that, the reservation is settled later.
        """
        if self._reservation.settled.is_set():
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._all_finished.wait()
                self._settle()
                await self._reservation.settled.wait()
        except TimeoutError:
            logger.warning("A reservation could not be settled before the response ended")

    def detach(self) -> None:
        """Note that the request goes on after its HTTP response, until `close` is called again."""
        self._parts += 1

    def close(self) -> None:
        """Note that the response has ended; cancelled choices may still have to finish."""
        self._parts -= 1
        if self._parts:
            return
        self._reservation.response_ended()
        self._finish_if_done()

    def _settle(self) -> None:
        if (
            not self._reservation.settled.is_set()
            and (draft := self._recorder.settlement) is not None
        ):
            self._reservation.settle(draft)
            self._recorder.reserved = self._reservation.amount

    def _finish_if_done(self) -> None:
        if self._running or self._parts:
            return
        self._settle()
        seconds = time.perf_counter() - self._started
        for observer in self._observers:
            observer.finished(self.status, seconds)
