"""Lets running requests finish before vLLM shuts its engine down."""

import time
from collections.abc import AsyncGenerator, AsyncIterable
from typing import TypeVar

from vllm.v1.engine.async_llm import AsyncLLM

POLL_SECONDS = 0.05

Event = TypeVar("Event")


class Drain:
    """Delays the engine's shutdown until the streams that need it have ended.

    vLLM drains by itself (`--shutdown-timeout`), but its engine refuses the calls to its workers
    meanwhile by which records of attempts are read. So the engine learns of the shutdown later.

    Attributes:
        begun: whether the server is shutting down, so that new requests belong elsewhere.
    """

    def __init__(self) -> None:
        self._streams = 0
        self.begun = False

    def install(self, engine: AsyncLLM) -> None:
        """Make the engine's shutdown wait, as long as its timeout allows.

        vLLM calls it in a thread, after SIGTERM and before its HTTP server ends.
        """
        shut_down = engine.shutdown

        def wait_and_shut_down(timeout: float | None = None) -> None:
            self.begun = True
            began = time.monotonic()
            while self._streams and time.monotonic() < began + (timeout or 0):
                time.sleep(POLL_SECONDS)
            left = max(0.0, began + (timeout or 0) - time.monotonic())
            shut_down(timeout=None if timeout is None else left)

        engine.shutdown = wait_and_shut_down  # type: ignore[method-assign]

    async def follow(self, events: AsyncIterable[Event]) -> AsyncGenerator[Event, None]:
        """Yield the events of a stream that needs the engine to its end."""
        self._streams += 1
        try:
            async for event in events:
                yield event
        finally:
            self._streams -= 1
