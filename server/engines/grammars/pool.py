"""The grammar pool: checks grammars within limits, fairly scheduled, and caches the results."""

import asyncio
import contextlib
import logging
import os
import socket
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from vllm.sampling_params import StructuredOutputsParams

from proctor.server.config.engine import GrammarSettings
from proctor.server.engines.grammars.base import CheckedGrammar
from proctor.server.engines.grammars.forkers import ForkServerProcess
from proctor.server.engines.grammars.frames import LENGTH, CheckRequest, CheckResult, pack, unpack
from proctor.server.engines.tool_calls import Constraint
from proctor.server.errors import EngineUnavailable, UnsupportedRequest
from proctor.server.fair_queue import FairQueue

logger = logging.getLogger(__name__)

QUICK_SECONDS = 0.1
"""CPU time of the first attempt. A grammar that takes longer is restarted in the slow queue."""

QUICK_PER_PROCESS = 4
"""Concurrent first attempts per process: they share the CPU, so that a short one need not wait for
a long one."""

QUICK_NICE = 3
SLOW_NICE = 10

MAX_CACHE_BYTES = 32 * 2**20
"""Size of the cache of check results; compiled grammars are cached by the engine."""

ENTRY_OVERHEAD = 512
"""The estimated size in bytes of a cached result without its texts."""


@dataclass(slots=True)
class RunningCheck:
    """A check that is running.

    Attributes:
        task: the check.
        waiters: number of requests that wait for it.
    """

    task: asyncio.Task[tuple[CheckResult, bool]]
    waiters: int = 0


class GrammarPool:
    """The `GrammarChecker` that checks grammars in separate processes.

    Attributes:
        settings: the limits of each check.
        quick_queue: the queue of first attempts.
        slow_queue: the queue of grammars that took longer than `QUICK_SECONDS`.
    """

    def __init__(
        self, config: Any, settings: GrammarSettings, *, cache: "ResultCache | None" = None
    ) -> None:
        """Start the processes; `wait` blocks until they are ready.

        Args:
            config: the engine's `VllmConfig`.
            settings: the limits.
            cache: of the results; None creates one of `MAX_CACHE_BYTES`.
        """
        # Read by these processes and by the engine's, which start later. The limits here are of
        # CPU time; vLLM's own is wall-clock time, which depends on the load of the machine.
        os.environ.setdefault("VLLM_REGEX_COMPILATION_TIMEOUT_S", "0")
        os.environ.setdefault("VLLM_XGRAMMAR_CACHE_MB", str(settings.cache_mib))
        # llguidance would log whole grammars of clients.
        os.environ.setdefault("LLGUIDANCE_LOG_LEVEL", "0")
        self._config = config
        self.settings = settings
        self._fork_server = ForkServerProcess(config)
        processes = settings.processes
        self.quick_queue = FairQueue(processes * QUICK_PER_PROCESS, settings.max_waiting)
        self.slow_queue = FairQueue(processes, settings.max_waiting)
        self._running: dict[bytes, RunningCheck] = {}
        self._cache = ResultCache(MAX_CACHE_BYTES) if cache is None else cache
        self._restarting = asyncio.Lock()

    @property
    def checks(self) -> int:
        """The number of distinct grammars that are being checked, those in a queue included."""
        return len(self._running)

    @property
    def pid(self) -> int | None:
        """The ID of the process that forks a child for each check."""
        return self._fork_server.pid

    def wait(self) -> None:
        self._fork_server.wait()

    async def check(self, constraint: Constraint, owner: str) -> CheckedGrammar:
        try:
            digest = constraint.digest
        except RecursionError:
            raise UnsupportedRequest(
                constraint.field, f"'{constraint.field}' is nested too deeply"
            ) from None
        entry = self._cache.get(digest)
        if entry is None:
            entry = await self._check_once(digest, constraint, owner)
        result, slow = entry
        if result.backend is None:
            raise UnsupportedRequest(
                constraint.field, f"'{constraint.field}': {self._reason(result)}"
            )
        return CheckedGrammar(_params(constraint, result), slow)

    def close(self) -> None:
        self._fork_server.close()

    async def _check_once(
        self, digest: bytes, constraint: Constraint, owner: str
    ) -> tuple[CheckResult, bool]:
        """Check a grammar once for all concurrent callers; cancel when the last one leaves."""
        running = self._running.get(digest)
        if running is None:
            running = RunningCheck(asyncio.create_task(self._check(digest, constraint, owner)))
            self._running[digest] = running
        running.waiters += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiters -= 1
            if not running.waiters:
                running.task.cancel()
                del self._running[digest]

    async def _check(
        self, digest: bytes, constraint: Constraint, owner: str
    ) -> tuple[CheckResult, bool]:
        request = self._request(constraint, min(QUICK_SECONDS, self.settings.seconds), QUICK_NICE)
        result = await self._run_queued(self.quick_queue, request, owner)
        slow = result.exceeded == "time"
        if slow:
            request = self._request(constraint, self.settings.seconds, SLOW_NICE)
            result = await self._run_queued(self.slow_queue, request, owner)
        self._cache.put(digest, (result, slow))
        return result, slow

    def _request(self, constraint: Constraint, seconds: float, nice: int) -> CheckRequest:
        memory = self.settings.memory_mib
        return CheckRequest(constraint.kind.value, constraint.value, seconds, memory, nice)

    async def _run_queued(self, queue: FairQueue, request: CheckRequest, owner: str) -> CheckResult:
        since = await queue.enter(owner, 1)
        try:
            return await self._run(request)
        finally:
            queue.leave(since)

    async def _run(self, request: CheckRequest) -> CheckResult:
        try:
            connection = self._fork_server.fork()
        except OSError:
            await self._restart()
            connection = self._fork_server.fork()
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            writer.write(pack(request))
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            return unpack(await reader.readexactly(length), CheckResult)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EngineUnavailable("the process that checks grammars has died") from error
        finally:
            # A shutdown reaches the child even if another process still has the socket open.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            writer.transport.abort()

    async def _restart(self) -> None:
        dead = self._fork_server
        async with self._restarting:
            if self._fork_server is dead:
                logger.error("the process that checks grammars has died: restarting it")
                await asyncio.to_thread(dead.close)
                self._fork_server = await asyncio.to_thread(ForkServerProcess, self._config)

    def _reason(self, result: CheckResult) -> str:
        settings = self.settings
        match result.exceeded:
            case "time":
                cost = f"more than {settings.seconds:g} s of CPU time to compile"
            case "memory":
                cost = f"more than {settings.memory_mib} MiB of memory to compile"
            case "steps":
                cost = "too long to compute a logits mask"
            case _:
                return result.refused or "it cannot be compiled to a grammar"
        return f"its grammar takes {cost}: make it smaller or simpler"


class ResultCache:
    """An LRU cache of check results, bounded by size. Values have whether the check was slow."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, tuple[CheckResult, bool]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes) -> tuple[CheckResult, bool] | None:
        entry = self._entries.get(digest)
        if entry is not None:
            self._entries.move_to_end(digest)
        return entry

    def put(self, digest: bytes, entry: tuple[CheckResult, bool]) -> None:
        if digest in self._entries:
            self._bytes -= _size(self._entries.pop(digest))
        self._entries[digest] = entry
        self._bytes += _size(entry)
        while self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= _size(oldest)

    def clear(self) -> None:
        """Remove all results."""
        self._entries.clear()
        self._bytes = 0


def _size(entry: tuple[CheckResult, bool]) -> int:
    result, _ = entry
    return ENTRY_OVERHEAD + 4 * len(result.rewritten or "") + 4 * len(result.refused or "")


def _params(constraint: Constraint, result: CheckResult) -> StructuredOutputsParams:
    kind, value = constraint.kind.value, constraint.value
    if result.rewritten is not None:
        kind, value = "grammar", result.rewritten
    params = StructuredOutputsParams(**{kind: value})
    params._backend = result.backend
    return params
