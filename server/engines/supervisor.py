"""Loads the engine in the background, monitors it, and restarts it when it fails."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from proctor.server.engines.base import Engine
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.errors import SOON, EngineUnavailable, Unavailable, in_one_line

logger = logging.getLogger(__name__)

EngineFactory = Callable[[], Engine]
"""Creates an engine. It may block for minutes and runs in its own thread."""

PROBE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
"""The upper bound of the restart backoff, which doubles with each restart. An engine that ran for
longer than this resets it."""


class EngineSupervisor:
    """The engine's lifecycle: loading, ready, restarting, or failed.

    A failed first load is final, as retrying would fail the same way; restarting the server is
    up to its process manager. Later failures restart the engine with exponential backoff.
    """

    def __init__(self, load: EngineFactory, timeouts: StallTimeouts, model: str = "") -> None:
        """Create a supervisor; `start` loads the engine.

        Args:
            load: creates the engine.
            timeouts: how long the engine may take to respond before it is restarted.
            model: the name of its model, for messages; empty if there is only one.
        """
        self._load = load
        self._timeouts = timeouts
        self._suffix = f" '{model}'" if model else ""
        self._first: asyncio.Future[None] | None = None
        self._held: Engine | None = None  # loading, ready or being killed; needs `aclose`
        self._engine: Engine | None = None
        self._loader: threading.Thread | None = None
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start loading the engine."""
        self._first = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._supervise(self._first))

    async def loaded(self) -> Engine:
        """Wait until the engine has loaded for the first time, and return it.

        Raises:
            Exception: the reason why it failed to load.
        """
        if self._first is None:
            raise RuntimeError("the supervisor was not started")
        await asyncio.shield(self._first)
        return self.engine

    @property
    def loader(self) -> threading.Thread | None:
        """The thread that is loading the engine or has loaded it."""
        return self._loader

    @property
    def up(self) -> bool:
        """Whether the engine is ready, as of the last heartbeat."""
        return self._engine is not None

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            Unavailable: if it is loading, restarting or failed to load.
        """
        if self._engine is not None:
            return self._engine
        if self._first is None or not self._first.done():
            raise Unavailable(
                f"the model{self._suffix} is still loading: try again in a few seconds",
                headers=SOON,
            )
        if self._first.cancelled() or self._first.exception() is not None:
            raise Unavailable(f"the model{self._suffix} failed to load: see the server's log")
        raise Unavailable(
            f"the engine{self._suffix} has stopped and is restarting: try again in a few seconds",
            headers=SOON,
        )

    async def ready(self) -> Engine:
        """Return the engine if it can serve requests now.

        Raises:
            Unavailable: if it is loading, restarting or failed to load.
            EngineUnavailable: if it has died.
        """
        engine = self.engine
        await engine.health()
        return engine

    async def aclose(self) -> None:
        """Shut the engine down, or stop waiting for it to load."""
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
                # The first failure is mostly a mistake in the settings, and needs no traceback.
                told = not first.done() and not logger.isEnabledFor(logging.DEBUG)
                logger.error(
                    "the model%s failed to load: %s",
                    self._suffix,
                    in_one_line(error),
                    exc_info=None if told else error,
                )
                if not first.done():
                    first.set_exception(error)
                    first.exception()  # mark it as retrieved, or asyncio logs it again
                    return
            else:
                self._engine = engine
                if not first.done():
                    first.set_result(None)
                reason = await self._until_failure(engine)
                self._engine = None
                logger.error("%s: restarting it", reason)
                await self._kill(engine)
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _start(self) -> Engine:
        """Load an engine and warm it up."""
        engine = self._held = await self._load_in_thread()
        failure = asyncio.ensure_future(self._until_failure(engine))
        warm_up = asyncio.ensure_future(engine.warm_up())
        try:
            await asyncio.wait({failure, warm_up}, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                raise EngineUnavailable(failure.result())
            await warm_up
        except Exception:
            await self._kill(engine)
            raise
        finally:
            for task in (failure, warm_up):
                task.cancel()
            await asyncio.gather(failure, warm_up, return_exceptions=True)
        return engine

    async def _kill(self, engine: Engine) -> None:
        await engine.kill()
        self._held = None

    async def _until_failure(self, engine: Engine) -> str:
        """Wait until the engine is dead or hangs, and return the reason."""
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await engine.heartbeat(self._timeouts)
            except EngineUnavailable as error:
                return str(error)

    async def _load_in_thread(self) -> Engine:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Engine] = loop.create_future()

        def resolve(engine: Engine | None, error: Exception | None) -> None:
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
            with contextlib.suppress(RuntimeError):  # the loop has closed: nothing waits for it
                loop.call_soon_threadsafe(resolve, engine, error)

        # A daemon thread, so that the server can exit while a model loads.
        self._loader = threading.Thread(target=work, name="engine-loader", daemon=True)
        self._loader.start()
        return await future
