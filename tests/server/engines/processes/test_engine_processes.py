"""Stand-ins for an engine's processes: their activity, and the removal of what they leave."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from proctor.server.engines.processes.engine_processes import EngineProcesses
from proctor.server.engines.processes.stall import (
    SAMPLES,
    Activity,
    StallDetector,
    Stalled,
    wait_unless_stalled,
)

pytestmark = pytest.mark.slow

PATIENCE = 60
SPAWN = multiprocessing.get_context("spawn")


def sleep(pipe: Connection) -> None:
    """Report the start, and sleep."""
    pipe.send(None)
    time.sleep(PATIENCE)


def spin(pipe: Connection) -> None:
    """Report the start, and use CPU time."""
    pipe.send(None)
    while True:
        pass


def have_spun(pipe: Connection) -> None:
    """Start a child that uses CPU time, as for a compiler."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        pipe.send(child.pid)


def share(pipe: Connection) -> None:
    """Hold shared memory and a named semaphore without releasing them."""
    memory = shared_memory.SharedMemory(create=True, size=1)
    lock = SPAWN.Lock()
    pipe.send((memory.name, lock._semlock.name))  # type: ignore[attr-defined]
    time.sleep(PATIENCE)


def paths(memory: str, semaphore: str) -> list[Path]:
    """Return the files of shared memory and of a semaphore."""
    return [Path("/dev/shm") / memory, Path(f"/dev/shm/sem.{semaphore.removeprefix('/')}")]


@contextlib.contextmanager
def engine(
    work: Callable[[Connection], None],
) -> Iterator[tuple[EngineProcesses, BaseProcess, Any]]:
    """Start a process with vLLM's name; yield those tracked, the process and its message."""
    ours, theirs = SPAWN.Pipe()
    processes = EngineProcesses()
    child = SPAWN.Process(target=work, args=(theirs,), name="EngineCore")
    with processes.starting():
        child.start()
    try:
        assert ours.poll(PATIENCE)
        yield processes, child, ours.recv()
    finally:
        processes.kill()
        child.join()
        ours.close()
        theirs.close()


def until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sleeping_process_has_no_activity() -> None:
    with engine(sleep) as (processes, _, _):
        until(lambda: not processes.activity().runnable)
        looks = [processes.activity() for _ in range(10)]

    assert len({look.cpu_seconds for look in looks}) == 1
    assert not any(look.stopped for look in looks)


@pytest.mark.parametrize("work", [spin, have_spun])
def test_the_cpu_time_of_a_working_process_is_seen(work: Callable[[Connection], None]) -> None:
    with engine(work) as (processes, _, _):
        before = processes.activity()
        until(lambda: processes.activity().cpu_seconds >= before.cpu_seconds + 0.1)
        assert processes.activity().runnable


def test_a_stopped_process_is_detected() -> None:
    with engine(spin) as (processes, child, _):
        os.kill(child.pid or 0, signal.SIGSTOP)
        until(lambda: processes.activity().stopped)


def test_an_orphaned_child_is_ended() -> None:
    with engine(have_spun) as (processes, child, orphan):
        processes.refresh()
        child.kill()
        child.join()
        assert psutil.pid_exists(orphan)
        processes.kill()
        until(lambda: not is_alive(orphan))


def test_shared_memory_of_a_killed_process_is_removed() -> None:
    with engine(share) as (processes, child, names):
        files = paths(*names)
        assert all(file.exists() for file in files)
        processes.refresh()
        child.kill()
        child.join()
        processes.kill()

    assert not any(file.exists() for file in files)


def test_a_failed_start_leaves_no_process_and_no_shared_memory() -> None:
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=share, args=(theirs,), name="EngineCore")
    files: list[Path] = []

    def start() -> None:
        with EngineProcesses().starting():
            child.start()
            assert ours.poll(PATIENCE)
            files.extend(paths(*ours.recv()))
            assert all(file.exists() for file in files)
            raise OSError("no memory")

    with pytest.raises(OSError, match="no memory"):
        start()
    assert not child.is_alive()
    assert not any(file.exists() for file in files)


def test_sigint_is_blocked_in_started_processes_only() -> None:
    ours, theirs = SPAWN.Pipe()
    processes = EngineProcesses()
    child = SPAWN.Process(target=sleep, args=(theirs,), name="EngineCore")
    with processes.starting():
        child.start()
    try:
        assert ours.poll(PATIENCE)
        status = Path(f"/proc/{child.pid}/status").read_text()
    finally:
        processes.kill()

    (blocked,) = (line for line in status.splitlines() if line.startswith("SigBlk"))
    assert int(blocked.split()[1], 16) >> (signal.SIGINT - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_shared_memory_that_this_process_has_mapped_is_kept() -> None:
    with engine(share) as (processes, child, (memory, _)):
        ours = shared_memory.SharedMemory(memory)
        processes.kill()
        assert not child.is_alive()
        assert (Path("/dev/shm") / memory).exists()
        ours.close()
        ours.unlink()


def test_the_processes_of_other_engines_are_spared() -> None:
    with engine(sleep) as (_, earlier, _), engine(sleep) as (processes, child, _):
        with engine(sleep) as (_, later, _):
            processes.kill()
            assert later.is_alive()
        assert earlier.is_alive()
        assert not child.is_alive()


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Run two loops that keep all cores busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


async def given_up(processes: EngineProcesses) -> str:
    """Return the reason why an engine that never answers is considered stalled."""
    asking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(Stalled) as caught:
        await wait_unless_stalled(asking, processes.activity, StallDetector(1.0, 5.0))
    return str(caught.value)


async def test_a_deadlock_is_detected_on_a_busy_machine() -> None:
    with busy_cores(), engine(sleep) as (processes, _, _):
        until(lambda: not processes.activity().runnable)
        assert "was idle" in await given_up(processes)


@pytest.mark.parametrize("work", [spin, have_spun])
async def test_work_is_waited_for_on_a_busy_machine(work: Callable[[Connection], None]) -> None:
    with busy_cores(), engine(work) as (processes, _, _):
        assert "busy" in await given_up(processes)


async def test_a_stopped_process_is_detected_on_a_busy_machine() -> None:
    with busy_cores(), engine(spin) as (processes, child, _):
        os.kill(child.pid or 0, signal.SIGSTOP)
        assert "stopped" in await given_up(processes)


async def test_a_late_response_is_accepted() -> None:
    with busy_cores(), engine(spin) as (processes, _, _):
        asking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        looks = 0

        def activity() -> Activity:
            nonlocal looks
            looks += 1
            if looks == 2 * SAMPLES:
                loop.call_soon_threadsafe(asking.set_result, None)
            return processes.activity()

        loop = asyncio.get_running_loop()
        await wait_unless_stalled(asking, activity, StallDetector(1.0, PATIENCE))

    assert looks >= 2 * SAMPLES


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
