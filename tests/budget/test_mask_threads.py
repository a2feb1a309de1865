"""Calls that may never end, in threads of their own."""

import os
import threading
import time

import pytest

pytest.importorskip("torch", reason="the CPU engine, which brings it, is missing")

from proctor.budget.processors.structured_outputs.mask_threads import (
    BURST_SECONDS,
    RECOVERY_RATE,
    SECONDS_PER_CALL,
    Allowance,
    MaskThreads,
)
from tests.waiting import PATIENCE


@pytest.fixture
def threads() -> MaskThreads:
    return MaskThreads()


def named() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name == "mask"}


def test_one_thread_is_used_again(threads: MaskThreads) -> None:
    seen: list[int] = []
    for _ in range(3):
        assert threads.run(lambda: seen.append(threading.get_ident()))

    assert len(seen) == 3
    assert len({*seen}) == 1
    assert seen[0] != threading.get_ident()


def test_callers_at_the_same_time_have_threads_of_their_own(threads: MaskThreads) -> None:
    met = threading.Barrier(2, timeout=PATIENCE)
    callers = [
        threading.Thread(target=threads.run, args=(lambda: met.wait() and None,)) for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)

    assert not met.broken
    assert not any(caller.is_alive() for caller in callers)


def test_an_error_is_the_callers(threads: MaskThreads) -> None:
    def fail() -> None:
        raise RuntimeError("as it is")

    with pytest.raises(RuntimeError, match="as it is"):
        threads.run(fail)
    assert threads.run(lambda: None)


def test_what_computes_too_long_is_left_alone(threads: MaskThreads) -> None:
    enough, begun = threading.Event(), threading.Event()
    where: list[threading.Thread] = []

    def compute() -> None:
        where.append(threading.current_thread())
        begun.set()
        while not enough.is_set():
            pass

    assert not threads.run(compute)
    assert begun.is_set()
    assert where[0].native_id is not None
    assert os.sched_getscheduler(where[0].native_id) == os.SCHED_IDLE
    assert threads.run(lambda: where.append(threading.current_thread()))
    enough.set()
    left, other = where
    left.join(PATIENCE)

    assert not left.is_alive()  # nobody has it again
    assert other is not left


def test_what_only_waits_is_waited_for(threads: MaskThreads) -> None:
    """As on a machine that has no time for it."""
    done: list[bool] = []

    def wait() -> None:
        time.sleep(2 * (SECONDS_PER_CALL + BURST_SECONDS))
        done.append(True)

    assert threads.run(wait)
    assert done


def test_threads_end_when_they_are_let_go(threads: MaskThreads) -> None:
    before = named()
    threads.run(lambda: None)
    (ours,) = named() - before
    threads.close()
    deadline = time.monotonic() + PATIENCE
    while ours in named():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_calls_have_one_allowance() -> None:
    now = 100.0
    allowance = Allowance(clock=lambda: now)
    assert allowance.left() == BURST_SECONDS
    allowance.spend(-1)
    assert allowance.left() == BURST_SECONDS
    allowance.spend(BURST_SECONDS / 2)
    assert allowance.left() == pytest.approx(BURST_SECONDS / 2)
    allowance.spend(10)
    assert allowance.left() == 0
    now += BURST_SECONDS / RECOVERY_RATE / 4
    assert allowance.left() == pytest.approx(BURST_SECONDS / 4)
    now += 1000
    assert allowance.left() == BURST_SECONDS
