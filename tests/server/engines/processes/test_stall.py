"""The stall detector distinguishes a working engine from a hanging one."""

from hypothesis import given
from hypothesis import strategies as st

from proctor.server.engines.processes.stall import SAMPLES, Activity, StallDetector

QUIET = 8.0
BUSY = 300.0
INTERVAL = QUIET / SAMPLES


def verdict(
    *activities: Activity, seconds: float = INTERVAL, busy: float = BUSY
) -> tuple[str | None, int]:
    """Return the reason of the stall, and the number of samples until it was detected."""
    detector = StallDetector(QUIET, busy)
    for number, activity in enumerate(activities, start=1):
        if why := detector.add(seconds, activity):
            return why, number
    return None, len(activities)


def steady(
    looks: int, share: float = 0.0, runnable: bool = False, stopped: bool = False
) -> list[Activity]:
    """Return the activity of a process with a constant share of a core."""
    return [
        Activity(number * share * INTERVAL, runnable, stopped) for number in range(1, looks + 1)
    ]


def test_a_deadlock_is_detected_within_the_quiet_time() -> None:
    why, looks = verdict(*steady(100))

    assert why is not None
    assert "was idle" in why
    assert looks == SAMPLES


def test_the_cpu_time_for_reading_input_does_not_count_as_work() -> None:
    assert verdict(*steady(100, share=0.02))[1] == SAMPLES


@given(share=st.floats(0.06, 64))
def test_a_process_that_uses_a_core_is_waited_for(share: float) -> None:
    assert verdict(*steady(10 * SAMPLES, share=share))[0] is None


def test_a_runnable_process_without_a_core_is_waited_for() -> None:
    assert verdict(*steady(10 * SAMPLES, runnable=True))[0] is None


@given(others=st.floats(0, 4), runnable=st.booleans())
def test_a_stopped_process_is_detected_although_others_are_busy(
    others: float, runnable: bool
) -> None:
    why, looks = verdict(*steady(100, share=others, runnable=runnable, stopped=True))

    assert why is not None
    assert looks == SAMPLES


def test_a_briefly_stopped_process_is_waited_for() -> None:
    looks = [
        Activity(number * INTERVAL, runnable=True, stopped=number % SAMPLES != 0)
        for number in range(1, 200)
    ]
    assert verdict(*looks)[0] is None


def test_the_quiet_time_starts_when_work_stops() -> None:
    worked = steady(40, share=1.0)
    still = [worked[-1]] * 100
    why, looks = verdict(*worked, *still)

    assert why is not None
    assert SAMPLES - 1 <= looks - 40 <= SAMPLES + 1


def test_a_livelock_is_detected_after_the_busy_time() -> None:
    why, looks = verdict(*steady(10_000, share=1.0, runnable=True))

    assert why is not None
    assert "busy" in why
    assert looks == BUSY / INTERVAL


@given(st.floats(QUIET, 10 * BUSY))
def test_time_in_which_the_detector_did_not_run_is_no_evidence(seconds: float) -> None:
    looks = SAMPLES // 2 - 1
    assert verdict(*steady(looks), seconds=seconds) == (None, looks)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2), st.booleans(), st.booleans()), max_size=80)
)
def test_no_stall_is_reported_before_the_quiet_time(
    looks: list[tuple[float, float, bool, bool]],
) -> None:
    detector = StallDetector(QUIET, BUSY)
    passed = cpu = 0.0
    for seconds, used, runnable, stopped in looks:
        passed, cpu = passed + seconds, cpu + used
        if detector.add(seconds, Activity(cpu, runnable, stopped)):
            assert passed >= QUIET - 1e-6
            return
