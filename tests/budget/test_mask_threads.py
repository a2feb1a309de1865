"""`MaskThreads`: calls that may never return, in separate threads."""

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


def mask_thread_ids() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name == "mask"}


def test_an_idle_thread_is_reused(threads: MaskThreads) -> None:
    seen: list[int] = []
    for _ in range(3):
        assert threads.run(lambda: seen.append(threading.get_ident()))

    assert len(seen) == 3
    assert len({*seen}) == 1
    assert seen[0] != threading.get_ident()


def test_concurrent_callers_have_separate_threads(threads: MaskThreads) -> None:
    barrier = threading.Barrier(2, timeout=PATIENCE)
    callers = [
        threading.Thread(target=threads.run, args=(lambda: barrier.wait() and None,))
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)

    assert not barrier.broken
    assert not any(caller.is_alive() for caller in callers)


def test_an_error_is_raised_in_the_caller(threads: MaskThreads) -> None:
    def fail() -> None:
        raise RuntimeError("as it is")

    with pytest.raises(RuntimeError, match="as it is"):
        threads.run(fail)
    assert threads.run(lambda: None)


def test_a_call_over_its_cpu_time_is_abandoned(threads: MaskThreads) -> None:
    stop, started = threading.Event(), threading.Event()
    used_threads: list[threading.Thread] = []

    def compute() -> None:
        used_threads.append(threading.current_thread())
        started.set()
        while not stop.is_set():
            pass

    assert not threads.run(compute)
    assert started.is_set()
    assert used_threads[0].native_id is not None
    assert os.sched_getscheduler(used_threads[0].native_id) == os.SCHED_IDLE
    assert threads.run(lambda: used_threads.append(threading.current_thread()))
    stop.set()
    abandoned, other = used_threads
    abandoned.join(PATIENCE)

    assert not abandoned.is_alive()  # it is not reused
    assert other is not abandoned


def test_a_call_that_uses_no_cpu_time_is_waited_for(threads: MaskThreads) -> None:
    """Like a call on an overloaded machine."""
    done: list[bool] = []

    def wait() -> None:
        time.sleep(2 * (SECONDS_PER_CALL + BURST_SECONDS))
        done.append(True)

    assert threads.run(wait)
    assert done


def test_close_ends_the_threads(threads: MaskThreads) -> None:
    before = mask_thread_ids()
    threads.run(lambda: None)
    (new_id,) = mask_thread_ids() - before
    threads.close()
    deadline = time.monotonic() + PATIENCE
    while new_id in mask_thread_ids():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_allowance_is_spent_and_recovers() -> None:
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
