"""A stand-in for a gateway that has started child processes in various states.

`python -m tests.server.engines.processes.gateway_children STATE` starts the children of one state,
prints their ids, and exits at the end of its input. The states are the public functions before
`find_reaper`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context, shared_memory
from multiprocessing.connection import Connection

import psutil

from proctor.server.engines.processes.reaper import MARK, reaping
from tests.waiting import PATIENCE

SECONDS = 600
SLEEP = f"import time; time.sleep({SECONDS})"
BLOCK_SIGNALS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "{SLEEP}"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
"""
SPAWN = get_context("spawn")


def no_children() -> list[object]:
    return []


def sleeping() -> list[object]:
    return [_start(SLEEP) for _ in range(3)]


def busy() -> list[object]:
    return [_start("while True: pass")]


def signals_blocked() -> list[object]:
    return [_start(f"{BLOCK_SIGNALS}; {SLEEP}")]


def own_session() -> list[object]:
    return [_start(SLEEP, start_new_session=True)]


def stopped() -> list[object]:
    pid = _start(SLEEP)
    os.kill(pid, signal.SIGSTOP)
    return [pid]


def orphaned() -> list[object]:
    parent = subprocess.run(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, check=True
    )
    return [int(parent.stdout)]


def empty_environment() -> list[object]:
    """Start a process, and a child of it whose environment is empty."""
    code = PARENT.replace("stdout=", "env={}, stdout=") + SLEEP
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return [parent.pid, int(parent.stdout.readline())]


def starting_continuously() -> list[object]:
    """Start processes without end, as fast as possible."""

    def start_all() -> None:
        while True:
            _start(SLEEP)

    threading.Thread(target=start_all, daemon=True).start()
    return [_start(SLEEP)]


def shared_memory_held() -> list[object]:
    """Start a process that holds shared memory and a semaphore; their files follow its id."""
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_share, args=(theirs,), daemon=True)
    child.start()
    return [child.pid, *ours.recv()]


def other_marks() -> list[object]:
    """Start processes without a mark, with an empty one, and with that of another gateway."""
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    marks: list[dict[str, str]] = [{}, {MARK: ""}, {MARK: os.environ[MARK] + "0"}]
    return [_start(SLEEP, env=unmarked | mark) for mark in marks]


def find_reaper(gateway: psutil.Process) -> tuple[psutil.Process, str]:
    """Return the reaper of a gateway, and the mark that it searches for."""
    deadline = time.monotonic() + PATIENCE
    while not (found := _reapers_of(gateway)):  # it may not have replaced its command line yet
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (reaper,) = found
    return reaper, reaper.cmdline()[-1]


def _reapers_of(gateway: psutil.Process) -> list[psutil.Process]:
    # Not by psutil's `children`, which compares start times; these change with the clock.
    return [
        process
        for process in psutil.process_iter(["ppid", "cmdline"])
        if process.info["ppid"] == gateway.pid
        and reaping.__module__ in (process.info["cmdline"] or ())
    ]


def processes_with_mark(mark: str) -> list[psutil.Process]:
    """Return all processes of this machine that carry a mark."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and not has_exited(process):
                processes.append(process)
    return processes


def has_exited(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _start(code: str, **options: object) -> int:
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **options).pid  # type: ignore[call-overload, no-any-return]


def _share(pipe: Connection) -> None:
    memory = shared_memory.SharedMemory(create=True, size=1)
    lock = SPAWN.Lock()
    name = lock._semlock.name  # type: ignore[attr-defined]
    pipe.send((f"/dev/shm/{memory.name}", f"/dev/shm/sem.{name.removeprefix('/')}"))
    time.sleep(SECONDS)


def main(state: Callable[[], list[object]]) -> None:
    with reaping():
        sys.stdout.write(" ".join(map(str, state())) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(globals()[sys.argv[1]])
