"""Learns the router's outcome model at intervals, and follows changes of its file."""

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import orjson

from proctor.router.model import ModelError
from proctor.router.outcomes.model import OutcomeModel
from proctor.server.admission.routing import Router
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings

logger = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
"""The interval at which the file is looked at: other processes of the server follow it too."""

HOUR = 3600.0

COMMAND = (sys.executable, "-m", "proctor.server.cli.learn")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Learning must not take the cores of the server."""

NOT_USED = 1
"""The exit status if the learned model should not be used, and was not written."""


class ModelUpdates:
    """Keeps a router's outcome model up to date.

    Several processes may share a model: one of them learns, and all of them use the result.
    """

    def __init__(
        self,
        router: Router,
        path: Path,
        interval: float,
        learn: Callable[[], Awaitable[int]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Initialize the updates.

        Args:
            router: uses the model.
            path: the file of the model; the report is beside it.
            interval: the seconds between two learnings.
            learn: writes the report, and the model if it should be used; returns the exit status
                of the process.
            now: returns the seconds since the Unix epoch.
        """
        self._router = router
        self._path = path
        self._interval = interval
        self._learn = learn
        self._now = now
        self._used = _changed(path)

    @classmethod
    def of(cls, settings: Settings, router: Router) -> "ModelUpdates | None":
        """Return the updates that the settings ask for, or None.

        Raises:
            ConfigError: if there is no folder for the model.
        """
        path, hours = settings.router.model, settings.router.learn_hours
        if path is None or not hours:
            return None
        if not path.parent.is_dir():
            raise ConfigError(f"router.model: There is no folder {path.parent}")
        return cls(router, path, hours * HOUR, lambda: _run_process(settings))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Check every `CHECK_SECONDS`."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            try:
                await self.check()
            except Exception:
                # The router goes on with what it has.
                logger.exception("The router's model could not be updated")
            await asyncio.sleep(CHECK_SECONDS)

    async def check(self) -> None:
        """Learn if it is time to, and use the model if its file has changed."""
        if self._is_due():
            with _lock(self._path.with_suffix(".lock")) as locked:
                # Another process may have learned while this one waited for its turn.
                if locked and self._is_due():
                    await self._learn_once()
        changed = _changed(self._path)
        if changed != self._used and changed is not None:
            self._used = changed
            self._use()

    def _is_due(self) -> bool:
        learned = _changed(self._report)
        return learned is None or self._now() - learned >= self._interval

    async def _learn_once(self) -> None:
        status = await self._learn()
        if status == 0:
            logger.info("The router has learned: see %s", self._report)
            return
        if status == NOT_USED:
            logger.warning(
                "The router keeps its model, as the new one is not good enough: see %s",
                self._report,
            )
        else:
            logger.warning("The router could not learn: status %d", status)
            # Not again before the interval has passed.
            self._report.touch()
            os.utime(self._report, (self._now(), self._now()))

    def _use(self) -> None:
        try:
            self._router.use(OutcomeModel.load(self._path))
        except ModelError as error:
            logger.warning("The router keeps its model: %s", error)

    @property
    def _report(self) -> Path:
        return self._path.with_suffix(".md")


def _changed(path: Path) -> float | None:
    """Return when a file was changed, or None if there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Lock a file against other processes; the value is whether it was free."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


async def _run_process(settings: Settings) -> int:
    """Learn in a process of its own, and return its exit status; it ends with this task."""
    job = {
        "ledger": settings.ledger.url.get_secret_value(),
        "router": settings.router.model_dump(mode="json"),
    }
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, **ONE_THREAD},
    )
    try:
        await process.communicate(orjson.dumps(job))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode if process.returncode is not None else -1
