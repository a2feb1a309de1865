"""Loads the engine beside the running server, watches it, and starts it again when it stops."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from proctor.server.engines.base import Engine
from proctor.server.engines.processes.stall import Patience
from proctor.server.errors import SOON, EngineUnavailable, Unavailable

logger = logging.getLogger(__name__)

EngineFactory = Callable[[], Engine]
"""Makes an engine; may block for minutes, and runs in a thread of its own."""

PROBE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
"""The pause before an engine is started again doubles with each time, up to this, until one has run
for longer."""


class EngineSupervisor:
    """Holds the engine: loading, then ready; loading again if it stops; or failed for good.

    An engine that cannot be loaded the first time will not be the second: that is
    left to whoever started the server.
    """

    def __init__(self, load: EngineFactory, patience: Patience) -> None:
        """Begin with no engine.

        Args:
            load: makes one.
            patience: how long it may owe an answer before it is given up.
        """
        self._load = load
        self._patience = patience
        self._first: asyncio.Future[None] | None = None
        self._held: Engine | None = None  # until nothing is left of it
        self._engine: Engine | None = None
        self._loader: threading.Thread | None = None
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load."""
        self._first = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._supervise(self._first))

    async def loaded(self) -> Engine:
        """Wait for the first engine.

        Raises:
            Exception: whatever kept it from loading.
        """
        if self._first is None:
            raise RuntimeError("the host was not started")
        await asyncio.shield(self._first)
        return self.engine

    @property
    def loader(self) -> threading.Thread | None:
        """The thread that loads, or has loaded, the engine."""
        return self._loader

    @property
    def up(self) -> bool:
        """Whether there is an engine that answers, as far as the watch has seen."""
        return self._engine is not None

    @property
    def engine(self) -> Engine:
        """The engine, if it has loaded.

        Raises:
            Unavailable: if it has not.
        """
        if self._engine is not None:
            return self._engine
        if self._first is None or not self._first.done():
            raise Unavailable(
                "the model is still loading: try again in a few seconds", headers=SOON
            )
        if self._first.cancelled() or self._first.exception() is not None:
            raise Unavailable("the model failed to load: the server's log says why")
        raise Unavailable(
            "the engine has stopped and is started again: try again in a few seconds", headers=SOON
        )

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
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._first is not None:
            self._first.cancel()
        if self._held is not None:
            await self._held.aclose()

    async def _supervise(self, first: asyncio.Future[None]) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            try:
                engine = await self._start()
            except Exception as error:
                logger.error("the model failed to load: %s", error, exc_info=error)
                if not first.done():
                    first.set_exception(error)
                    first.exception()  # taken here, so that asyncio does not log it once more
                    return
            else:
                self._engine = engine
                if not first.done():
                    first.set_result(None)
                why = await self._until_it_stops(engine)
                self._engine = None
                logger.error("%s: it is started again", why)
                await self._abandon(engine)
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _start(self) -> Engine:
        """Load an engine and have it do once what is slow the first time."""
        engine = self._held = await self._load_in_thread()
        stopping = asyncio.ensure_future(self._until_it_stops(engine))
        warming = asyncio.ensure_future(engine.warm_up())
        try:
            await asyncio.wait({stopping, warming}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                raise EngineUnavailable(stopping.result())
            await warming
        except Exception:
            await self._abandon(engine)
            raise
        finally:
            for task in (stopping, warming):
                task.cancel()
            await asyncio.gather(stopping, warming, return_exceptions=True)
        return engine

    async def _abandon(self, engine: Engine) -> None:
        await engine.kill()
        self._held = None

    async def _until_it_stops(self, engine: Engine) -> str:
        """Wait until the engine is dead, or as good as dead; which of them."""
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await engine.heartbeat(self._patience)
            except EngineUnavailable as error:
                return str(error)

    async def _load_in_thread(self) -> Engine:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Engine] = loop.create_future()

        def settle(engine: Engine | None, error: Exception | None) -> None:
            if future.cancelled():
                return
            if engine is not None:
                future.set_result(engine)
            else:
                future.set_exception(error or RuntimeError("no engine"))

        def work() -> None:
            engine: Engine | None = None
            error: Exception | None = None
            try:
                engine = self._load()
            except Exception as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(settle, engine, error)

        # A daemon, so that a server told to stop need not wait for a model to load.
        self._loader = threading.Thread(target=work, name="engine-loader", daemon=True)
        self._loader.start()
        return await future
