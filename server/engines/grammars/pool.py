"""Looks grammars through, in bounds, by turns, and each of them once."""

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
from proctor.server.engines.grammars.forkers import Forkers
from proctor.server.engines.grammars.frames import LENGTH, Answer, Task, pack, unpack
from proctor.server.engines.tool_calls import Constraint
from proctor.server.errors import EngineUnavailable, UnsupportedRequest
from proctor.server.fair_queue import FairQueue

logger = logging.getLogger(__name__)

QUICK_SECONDS = 0.1
"""CPU time for a first try. What takes longer is begun again behind others that do."""

QUICK_PER_PROCESS = 4
"""First tries at a time: they share the CPU, so that a short one need not wait for a long one."""

QUICK_NICE = 3
SLOW_NICE = 10

MAX_KEPT_BYTES = 32 * 2**20
"""Of answers about grammars; a compiled grammar is kept by the engine."""

KEPT_OVERHEAD = 512


@dataclass(slots=True)
class Running:
    """A grammar that is being tried.

    Attributes:
        task: the trial.
        waiting: how many wait for it.
    """

    task: "asyncio.Task[tuple[Answer, bool]]"
    waiting: int = 0


class GrammarPool:
    """The processes, the lines in front of them, and what they have found before."""

    def __init__(self, config: Any, settings: GrammarSettings) -> None:
        """Start the processes; `wait` until they can be used.

        Args:
            config: the engine's `VllmConfig`.
            settings: the limits.
        """
        # Read by these processes and by the engine's, which is started after them. Limits of CPU
        # time hold already: vLLM's own is on the clock, and depends on how busy the machine is.
        os.environ.setdefault("VLLM_REGEX_COMPILATION_TIMEOUT_S", "0")
        os.environ.setdefault("VLLM_XGRAMMAR_CACHE_MB", str(settings.cache_mib))
        # It writes whole grammars of clients to the log.
        os.environ.setdefault("LLGUIDANCE_LOG_LEVEL", "0")
        self._config = config
        self._settings = settings
        self._forkers = Forkers(config)
        processes = settings.processes
        self._quick = FairQueue(processes * QUICK_PER_PROCESS, settings.max_waiting)
        self._slow = FairQueue(processes, settings.max_waiting)
        self._running: dict[bytes, Running] = {}
        self._found = Found(MAX_KEPT_BYTES)
        self._restarting = asyncio.Lock()

    def wait(self) -> None:
        self._forkers.wait()

    async def check(self, constraint: Constraint, owner: str) -> CheckedGrammar:
        try:
            name = constraint.digest
        except RecursionError:
            raise UnsupportedRequest(
                constraint.field, f"'{constraint.field}' is nested too deeply"
            ) from None
        found = self._found.get(name)
        if found is None:
            found = await self._find(name, constraint, owner)
        answer, slow = found
        if answer.backend is None:
            raise UnsupportedRequest(constraint.field, f"'{constraint.field}': {self._why(answer)}")
        return CheckedGrammar(_params(constraint, answer), slow)

    def close(self) -> None:
        self._forkers.close()

    async def _find(self, name: bytes, constraint: Constraint, owner: str) -> tuple[Answer, bool]:
        """Try it, together with all who ask for the same; none of them left ends it."""
        running = self._running.get(name)
        if running is None:
            running = Running(asyncio.create_task(self._try(name, constraint, owner)))
            self._running[name] = running
        running.waiting += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiting -= 1
            if not running.waiting:
                running.task.cancel()
                del self._running[name]

    async def _try(self, name: bytes, constraint: Constraint, owner: str) -> tuple[Answer, bool]:
        quick = min(QUICK_SECONDS, self._settings.seconds)
        answer = await self._ask_in(self._quick, self._task(constraint, quick, QUICK_NICE), owner)
        slow = answer.out_of == "time"
        if slow:
            task = self._task(constraint, self._settings.seconds, SLOW_NICE)
            answer = await self._ask_in(self._slow, task, owner)
        self._found.put(name, (answer, slow))
        return answer, slow

    def _task(self, constraint: Constraint, seconds: float, nice: int) -> Task:
        memory = self._settings.memory_mib
        return Task(constraint.kind.value, constraint.value, seconds, memory, nice)

    async def _ask_in(self, line: FairQueue, task: Task, owner: str) -> Answer:
        since = await line.enter(owner, 1)
        try:
            return await self._ask(task)
        finally:
            line.leave(since)

    async def _ask(self, task: Task) -> Answer:
        try:
            connection = self._forkers.begin()
        except OSError:
            await self._restart()
            connection = self._forkers.begin()
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            writer.write(pack(task))
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            return unpack(await reader.readexactly(length), Answer)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EngineUnavailable("the process that compiles grammars is gone") from error
        finally:
            with contextlib.suppress(OSError):  # told even if another process has it open
                connection.shutdown(socket.SHUT_RDWR)
            writer.transport.abort()

    async def _restart(self) -> None:
        gone = self._forkers
        async with self._restarting:
            if self._forkers is gone:
                logger.error("the process that compiles grammars is gone: it is started again")
                await asyncio.to_thread(gone.close)
                self._forkers = await asyncio.to_thread(Forkers, self._config)

    def _why(self, answer: Answer) -> str:
        settings = self._settings
        match answer.out_of:
            case "time":
                used = f"more than {settings.seconds:g} s of CPU time to compile"
            case "memory":
                used = f"more than {settings.memory_mib} MiB of memory to compile"
            case "steps":
                used = "too long to follow from token to token"
            case _:
                return answer.refused or "no grammar can be made of it"
        return f"its grammar takes {used}: make it smaller or simpler"


class Found:
    """Answers about grammars, the latest of them."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[Answer, bool]] = OrderedDict()

    def get(self, name: bytes) -> tuple[Answer, bool] | None:
        """What was found, if it is still known."""
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
        return found

    def put(self, name: bytes, found: tuple[Answer, bool]) -> None:
        """Keep what was found."""
        if name in self._kept:
            self._bytes -= _size(self._kept.pop(name))
        self._kept[name] = found
        self._bytes += _size(found)
        while self._bytes > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(found: tuple[Answer, bool]) -> int:
    answer, _ = found
    return KEPT_OVERHEAD + 4 * len(answer.rewritten or "") + 4 * len(answer.refused or "")


def _params(constraint: Constraint, answer: Answer) -> StructuredOutputsParams:
    kind, value = constraint.kind.value, constraint.value
    if answer.rewritten is not None:
        kind, value = "grammar", answer.rewritten
    params = StructuredOutputsParams(**{kind: value})
    params._backend = answer.backend
    return params
