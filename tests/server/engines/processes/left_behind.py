"""What a gateway leaves behind that is killed, and something that stands in for one.

`python -m tests.server.engines.processes.left_behind STATE` starts processes, says which, and ends
at the end of its input; the first functions here are its states.
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

SECONDS = 600
SLEEP = f"import time; time.sleep({SECONDS})"
DEAF = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); {SLEEP}"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "{SLEEP}"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
"""
SPAWN = get_context("spawn")


def nothing() -> list[object]:
    return []


def sleeping() -> list[object]:
    return [_start(SLEEP) for _ in range(3)]


def spinning() -> list[object]:
    return [_start("while True: pass")]


def deaf() -> list[object]:
    return [_start(DEAF)]


def apart() -> list[object]:
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


def stripped() -> list[object]:
    """One whose environment was emptied, but whose parent is there."""
    code = PARENT.replace("stdout=", "env={}, stdout=") + SLEEP
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return [parent.pid, int(parent.stdout.readline())]


def breeding() -> list[object]:
    """More and more of them, as fast as can be."""

    def breed() -> None:
        while True:
            _start(SLEEP)

    threading.Thread(target=breed, daemon=True).start()
    return [_start(SLEEP)]


def sharing() -> list[object]:
    """One that holds shared memory and a semaphore; their files are told after it."""
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_share, args=(theirs,), daemon=True)
    child.start()
    return [child.pid, *ours.recv()]


def strangers() -> list[object]:
    """One that bears no mark, and one that bears another gateway's."""
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    marks: list[dict[str, str]] = [{}, {MARK: ""}, {MARK: os.environ[MARK] + "0"}]
    return [_start(SLEEP, env=unmarked | mark) for mark in marks]


def reaper_of(gateway: psutil.Process) -> tuple[psutil.Process, str]:
    """The process that waits for a gateway's end, and the mark that it looks for."""
    (reaper,) = [child for child in gateway.children() if reaping.__module__ in child.cmdline()]
    return reaper, reaper.cmdline()[-1]


def bearers(mark: str) -> list[psutil.Process]:
    """All processes of this machine that bear a mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and not is_gone(process):
                found.append(process)
    return found


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _start(code: str, **given: object) -> int:
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **given).pid  # type: ignore[call-overload, no-any-return]


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
