"""Generates responses in the background, into the database."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from proctor.server.api.generation.responder import Responder
from proctor.server.api.generation.response_archive import (
    ResponseArchive,
    patiently,
    to_object,
)
from proctor.server.config.limits import Limits
from proctor.server.errors import CLIENT_GONE, NotFound, Unavailable
from proctor.server.generation.runner import shutting_down
from proctor.server.renderers.sse_encoder import SseEncoder
from proctor.server.schemas.openai_responses.events import LAST_EVENTS
from proctor.server.storage.errors import reason
from proctor.server.storage.responses import ResponseStore, StoredEvent, StoredResponse
from proctor.server.storage.retry import retry_until_done, wait_or_cancel
from proctor.server.telemetry.request_monitor import RequestMonitor
from proctor.server.transport.sse import COMMENT, LastEvents, data_of, event
from proctor.server.transport.sse_response import SseResponse

logger = logging.getLogger(__name__)

BATCH_SECONDS = 0.5
"""The interval at which events are stored, and at which a cancellation takes effect."""

POLL_SECONDS = 0.25
"""The interval at which a stream reads stored events."""

START = -1
"""The number before that of the first event."""

CLOSE_SECONDS = 5.0
"""The maximum time for pending writes at shutdown. Other gateways end what remains."""


class BackgroundResponses:
    """The responses that this gateway generates in the background.

    Their events are stored in batches, so that any gateway can serve them. They outlive the
    connections of their clients, and not this process.

    Attributes:
        archive: the archive of the responses.
    """

    def __init__(self, archive: ResponseArchive) -> None:
        self.archive = archive
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self,
        stored: StoredResponse,
        responder: Responder,
        encoder: SseEncoder,
        cancelled: Callable[[], Mapping[str, Any]],
        monitor: RequestMonitor,
    ) -> None:
        """Start to generate a response.

        Args:
            stored: the response as it begins.
            responder: generates it.
            encoder: encodes its events.
            cancelled: returns the response as it is when it is cancelled.
            monitor: follows the request until the response is complete.

        Raises:
            BadRequest: if no responses are stored.
            Unavailable: if the database does not answer.
        """
        store = self.archive.require("background")
        try:
            await patiently(store.add(stored, datetime.now(UTC), None))
        except BaseException:  # it may have been stored all the same
            self._spawn(retry_until_done(lambda: store.delete(stored.key, stored.id)))
            raise
        monitor.detach()
        run = BackgroundRun(store, self.archive, responder, encoder, cancelled, stored.id, monitor)
        self._spawn(run.run())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait until the responses have ended, which have failed, for `CLOSE_SECONDS` at most."""
        await wait_or_cancel(self._tasks, CLOSE_SECONDS)


class BackgroundRun:
    """One response that is generated in the background."""

    def __init__(
        self,
        store: ResponseStore,
        archive: ResponseArchive,
        responder: Responder,
        encoder: SseEncoder,
        cancelled: Callable[[], Mapping[str, Any]],
        response_id: str,
        monitor: RequestMonitor,
    ) -> None:
        self._store = store
        self._archive = archive
        self._responder = responder
        self._encoder = encoder
        self._cancelled = cancelled
        self._id = response_id
        self._monitor = monitor
        self._events: list[dict[str, Any]] = []
        self._is_cancelled = False

    async def run(self) -> None:
        """Generate the response, and store its events and its end."""
        self._monitor.status = 200
        generating = asyncio.create_task(self._generate())
        try:
            while not generating.done():
                await asyncio.wait({generating}, timeout=BATCH_SECONDS)
                if not generating.done() and not await self._append():
                    self._is_cancelled = True
                    generating.cancel()
                    await asyncio.wait({generating})
            await self._end()
        finally:
            generating.cancel()
            self._monitor.close()

    async def _generate(self) -> None:
        """Generate the events; the last one has the response unless that was cancelled."""
        try:
            async with contextlib.aclosing(self._responder.stream(self._encoder)) as chunks:
                async for chunk in chunks:
                    self._events += data_of(chunk)
        except asyncio.CancelledError:
            self._monitor.status = CLIENT_GONE
            if not self._is_cancelled:
                self._events += data_of(self._encoder.error(shutting_down()))

    async def _append(self) -> bool:
        """Store the events so far, and return whether to continue."""
        count = len(self._events)
        try:
            goes_on = await self._store.append(self._id, encoded(self._events[:count]))
        except Exception as error:  # each driver has exceptions of its own
            logger.info("Events of a response are stored later: %s", reason(error))
            return True
        del self._events[:count]
        return goes_on

    async def _end(self) -> None:
        body = self._cancelled() if self._is_cancelled else self._events[-1]["response"]
        events = encoded(self._events)
        data, expires = orjson.dumps(body), self._archive.expires
        await retry_until_done(
            lambda: self._store.end(self._id, body["status"], data, events, expires)
        )


def encoded(events: Iterable[Mapping[str, Any]]) -> list[StoredEvent]:
    """Return events as they are stored: consecutive deltas of one text are one event."""
    merged: list[dict[str, Any]] = []
    for each in events:
        last = merged[-1] if merged else {}
        if "delta" in each and _text_of(each) == _text_of(last):
            last["delta"] += each["delta"]
            last["sequence_number"] = each["sequence_number"]
            if "logprobs" in each:
                last["logprobs"] = [*last["logprobs"], *each["logprobs"]]
        else:
            merged.append({**each})
    return [StoredEvent(each["sequence_number"], event(each, name=each["type"])) for each in merged]


def _text_of(each: Mapping[str, Any]) -> tuple[Any, Any]:
    return each.get("type"), each.get("item_id")


def followed(
    archive: ResponseArchive, key: str, response_id: str, after: int, limits: Limits
) -> SseResponse:
    """Return the stream of a background response, see `follow`."""
    return SseResponse(
        follow(archive, key, response_id, after),
        heartbeat=lambda: COMMENT,
        heartbeat_seconds=limits.heartbeat_seconds,
        send_timeout=limits.send_timeout_seconds,
    )


async def follow(
    archive: ResponseArchive, key: str, response_id: str, after: int
) -> AsyncGenerator[bytes, None]:
    """Yield the events of a background response, those that are stored and those to come.

    Args:
        archive: the archive of the responses.
        key: the name of the API key.
        response_id: the id of the response.
        after: the number of the last event that the client has.
    """
    store = archive.require("background")
    while True:
        try:
            stored = await archive.find(key, response_id)
            events = await patiently(store.events(response_id, after))
        except NotFound:  # deleted meanwhile
            return
        except Unavailable:
            await asyncio.sleep(POLL_SECONDS)
            continue
        for each in events:
            after = each.number
            (data,) = data_of(each.data)
            if data["type"] in LAST_EVENTS.values():
                yield LastEvents(each.data)
                return
            yield each.data
        if events:
            continue
        if not stored.is_running:
            yield LastEvents(_last_event(stored, after + 1))
            return
        await asyncio.sleep(POLL_SECONDS)


def _last_event(stored: StoredResponse, number: int) -> bytes:
    """Return the last event of a response that was cancelled, or whose gateway was lost."""
    name = LAST_EVENTS[stored.status]
    data = {"type": name, "sequence_number": number, "response": to_object(stored)}
    return event(data, name=name)
