"""Loads the engine beside the running server, and knows whether it can answer."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

from server.engines.base import Engine
from server.errors import Unavailable

logger = logging.getLogger(__name__)

Load = Callable[[], Engine]
"""Makes an engine; may block for minutes, and runs in a thread of its own."""


class EngineHost:
    """Holds the engine: loading, then ready or failed."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._engine: asyncio.Future[Engine] | None = None

    def start(self) -> None:
        """Begin to load."""
        loop = asyncio.get_running_loop()
        self._engine = loop.create_future()
        # A daemon, so that a server told to stop need not wait for a model to load.
        threading.Thread(
            target=self._work, args=(loop, self._engine), name="engine-loader", daemon=True
        ).start()

    async def loaded(self) -> Engine:
        """Wait for the engine.

        Raises:
            Exception: whatever kept it from loading.
        """
        if self._engine is None:
            raise RuntimeError("the host was not started")
        return await asyncio.shield(self._engine)

    @property
    def engine(self) -> Engine:
        """The engine, if it has loaded.

        Raises:
            Unavailable: if it has not.
        """
        if self._engine is None or not self._engine.done():
            raise Unavailable(
                "the model is still loading: try again in a few seconds",
                headers={"retry-after": "5"},
            )
        if self._engine.cancelled() or self._engine.exception() is not None:
            raise Unavailable("the model failed to load: the server's log says why")
        return self._engine.result()

    async def ready(self) -> Engine:
        """The engine, if it can answer now.

        Raises:
            Unavailable: if it is loading or has failed.
            EngineUnavailable: if it has died.
        """
        engine = self.engine
        await engine.health()
        return engine

    async def aclose(self) -> None:
        """Stop the engine, or stop waiting for it."""
        future = self._engine
        if future is None or future.cancel() or future.cancelled() or future.exception():
            return
        await future.result().aclose()

    def _work(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Engine]) -> None:
        engine: Engine | None = None
        error: Exception | None = None
        try:
            engine = self._load()
        except Exception as caught:
            error = caught

        def settle() -> None:
            if future.cancelled():
                return
            if engine is not None:
                future.set_result(engine)
            else:
                logger.error("the model failed to load: %s", error, exc_info=error)
                future.set_exception(error or RuntimeError("no engine"))
                future.exception()  # taken here, so that asyncio does not log it once more

        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(settle)
