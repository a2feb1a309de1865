"""A gateway that is killed: what it has started ends, whatever state it is in, and nothing else."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.server.engines.processes import left_behind
from tests.server.engines.processes.left_behind import bearers, is_gone, reaper_of
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class Gateway:
    """A process that has started some others.

    Attributes:
        process: its own.
        told: what it says of them.
        reaper: what waits for its end.
        mark: which all of them bear.
    """

    process: "subprocess.Popen[str]"
    told: list[str]
    reaper: psutil.Process
    mark: str

    @property
    def started(self) -> list[psutil.Process]:
        """The processes that it has named."""
        return [psutil.Process(int(pid)) for pid in self.told if pid.isdecimal()]

    def kill(self) -> None:
        """Kill it, and wait until its reaper has done its work."""
        self.process.kill()
        self.process.wait()
        until(lambda: is_gone(self.reaper))


@contextlib.contextmanager
def gateway(state: Callable[[], list[object]]) -> Iterator[Gateway]:
    """A gateway that has started processes in some state."""
    process = subprocess.Popen(
        [sys.executable, "-m", left_behind.__name__, state.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline().split()
            reaper, mark = reaper_of(psutil.Process(process.pid))
            yield Gateway(process, told, reaper, mark)
        finally:
            process.kill()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "state",
    [
        left_behind.sleeping,
        left_behind.spinning,
        left_behind.stopped,
        left_behind.deaf,
        left_behind.apart,
        left_behind.orphaned,
        left_behind.stripped,
    ],
)
def test_what_a_killed_gateway_has_started_ends(state: Callable[[], list[object]]) -> None:
    with gateway(state) as struck:
        left = struck.started
        assert left
        assert not any(map(is_gone, left))
        struck.kill()

    assert all(map(is_gone, left))


@pytest.mark.parametrize("_", range(3))
def test_what_it_was_just_starting_ends_too(_: int) -> None:
    with gateway(left_behind.breeding) as struck:
        until(lambda: len(bearers(struck.mark)) > 3)
        struck.kill()

    assert bearers(struck.mark) == []


def test_what_they_shared_is_given_back() -> None:
    with gateway(left_behind.sharing) as struck:
        _, *files = map(Path, struck.told)
        assert all(file.exists() for file in files)
        struck.kill()

    assert not any(file.exists() for file in files)


def test_what_bears_another_mark_or_none_is_left_alone() -> None:
    with gateway(left_behind.strangers) as struck:
        others = struck.started
        struck.kill()

    assert not any(map(is_gone, others))
    for other in others:
        other.kill()


def test_a_gateway_that_ends_by_itself_waits_for_what_it_left_to_end() -> None:
    with gateway(left_behind.sleeping) as ending:
        left = ending.started
        ending.process.communicate(timeout=PATIENCE)

    assert ending.process.returncode == 0
    assert all(map(is_gone, [*left, ending.reaper]))


def test_it_waits_for_the_gateways_end_whatever_it_is_told() -> None:
    with gateway(left_behind.sleeping) as struck:
        left = struck.started
        until(lambda: ignores(struck.reaper, signal.SIGHUP))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            struck.reaper.send_signal(number)
        struck.kill()

    assert all(map(is_gone, left))


def ignores(process: psutil.Process, number: signal.Signals) -> bool:
    (line,) = (
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("SigIgn")
    )
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_ctrl_c_in_a_terminal_is_not_for_it() -> None:
    with gateway(left_behind.nothing) as living:
        assert os.getsid(living.reaper.pid) == living.reaper.pid != os.getsid(living.process.pid)
