"""When a gateway is killed, the reaper ends its children in every state, and no other process."""

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

from tests.server.engines.processes import gateway_children
from tests.server.engines.processes.gateway_children import (
    find_reaper,
    has_exited,
    processes_with_mark,
)
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class Gateway:
    """A stand-in for a gateway, with its children.

    Attributes:
        process: the stand-in itself.
        output: the words that it printed about its children.
        reaper: its reaper.
        mark: the environment variable's value that the children carry.
    """

    process: "subprocess.Popen[str]"
    output: list[str]
    reaper: psutil.Process
    mark: str

    @property
    def started(self) -> list[psutil.Process]:
        """The child processes that it has printed."""
        return [psutil.Process(int(pid)) for pid in self.output if pid.isdecimal()]

    def kill(self) -> None:
        """Kill the stand-in, and wait until its reaper has exited."""
        self.process.kill()
        self.process.wait()
        until(lambda: has_exited(self.reaper))


@contextlib.contextmanager
def gateway(state: Callable[[], list[object]]) -> Iterator[Gateway]:
    """Start a stand-in whose children are in a state."""
    process = subprocess.Popen(
        [sys.executable, "-m", gateway_children.__name__, state.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            output = process.stdout.readline().split()
            reaper, mark = find_reaper(psutil.Process(process.pid))
            yield Gateway(process, output, reaper, mark)
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "state",
    [
        gateway_children.sleeping,
        gateway_children.busy,
        gateway_children.stopped,
        gateway_children.signals_blocked,
        gateway_children.own_session,
        gateway_children.orphaned,
        gateway_children.empty_environment,
    ],
)
def test_the_children_of_a_killed_gateway_are_ended(state: Callable[[], list[object]]) -> None:
    with gateway(state) as killed:
        children = killed.started
        assert children
        assert not any(map(has_exited, children))
        killed.kill()

    assert all(map(has_exited, children))


@pytest.mark.parametrize("_", range(3))
def test_children_that_were_just_being_started_are_ended(_: int) -> None:
    with gateway(gateway_children.starting_continuously) as killed:
        until(lambda: len(processes_with_mark(killed.mark)) > 3)
        killed.kill()

    assert processes_with_mark(killed.mark) == []


def test_shared_memory_of_the_children_is_removed() -> None:
    with gateway(gateway_children.shared_memory_held) as killed:
        _, *files = map(Path, killed.output)
        assert all(file.exists() for file in files)
        killed.kill()

    assert not any(file.exists() for file in files)


def test_processes_with_another_mark_or_none_are_spared() -> None:
    with gateway(gateway_children.other_marks) as killed:
        others = killed.started
        killed.kill()

    assert not any(map(has_exited, others))
    for other in others:
        other.kill()


def test_a_gateway_that_exits_by_itself_waits_for_its_children_to_end() -> None:
    with gateway(gateway_children.sleeping) as ending:
        children = ending.started
        ending.process.communicate(timeout=PATIENCE)

    assert ending.process.returncode == 0
    assert all(map(has_exited, [*children, ending.reaper]))


def test_the_reaper_ignores_signals_until_the_gateway_ends() -> None:
    with gateway(gateway_children.sleeping) as killed:
        children = killed.started
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        until(lambda: all(ignores(killed.reaper, number) for number in signals))
        for number in signals:
            killed.reaper.send_signal(number)
        killed.kill()

    assert all(map(has_exited, children))


def ignores(process: psutil.Process, number: signal.Signals) -> bool:
    (line,) = (
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("SigIgn")
    )
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_ctrl_c_in_a_terminal_does_not_reach_the_reaper() -> None:
    with gateway(gateway_children.no_children) as running:
        assert os.getsid(running.reaper.pid) == running.reaper.pid != os.getsid(running.process.pid)
