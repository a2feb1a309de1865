"""Replicas are taken out when they fail, and come back by themselves."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proctor.server.engines.replicas.balancing.health import Health, HealthSettings, State
from tests.server.engines.replicas.balancing.world import Condition, World

DEFAULTS = HealthSettings()


def started(count: int, rate: float = 0.5) -> World:
    world = World(count, rate=rate)
    assert not world.usable(), "nothing is known of them"
    world.pass_time(30)
    assert world.usable() == set(world.replicas)
    return world


def test_a_replica_is_up_with_its_first_answer() -> None:
    health = Health(lambda: 0.5, identity="a")
    health.add("r", 0)
    assert (health.state("r", 0), health.next_probe("r", 0)) == (State.OUT, 0)

    health.probe_answered("r", 1, "a")
    assert (health.state("r", 1), health.reason("r")) == (State.UP, "")
    assert health.next_probe("r", 1) == 1 + DEFAULTS.probe_seconds


def test_a_dead_replica_is_out_at_once_and_comes_back_on_trial() -> None:
    world = started(3)
    world.become("r0", Condition.DEAD)
    world.pass_time(DEFAULTS.probe_seconds + 0.25)
    assert world.usable() == {"r1", "r2"}
    assert world.health.reason("r0") == "refused"
    sent = world.replicas["r0"].sent
    world.pass_time(20)
    assert world.replicas["r0"].sent == sent

    world.rate = 0
    world.become("r0", Condition.GOOD)
    world.pass_time(DEFAULTS.max_backoff_seconds)
    assert world.health.state("r0", world.now) is State.TRIAL
    assert world.health.weight("r0", world.now) == DEFAULTS.slow_weight
    trial = world.health.request_sent("r0", world.now)
    assert not world.health.usable("r0", world.now), "one at a time"
    trial.tokens(1, world.now)
    assert world.health.weight("r0", world.now) == 1


def test_on_trial_requests_are_not_refused_for_want_of_others() -> None:
    health = Health(lambda: 0.5)
    health.add("r", 0)
    health.connection_failed("r", 0, "refused")
    health.probe_answered("r", 1, "a")
    health.request_sent("r", 1)

    assert health.state("r", 1) is State.TRIAL
    assert health.usable("r", 1)


def test_backoff_doubles_with_jitter_and_is_forgotten() -> None:
    health = Health(lambda: 1.0)
    health.add("r", 0)
    now, waits = 0.0, []
    for _ in range(8):
        health.probe_sent("r", now)
        health.connection_failed("r", now, "refused")
        waits.append(health.next_probe("r", now) - now)
        now += waits[-1]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]

    health.probe_answered("r", now, "a")
    health.request_sent("r", now).tokens(1, now)
    for _ in range(20):
        now += 2
        health.probe_answered("r", now, "a")
    health.connection_failed("r", now, "reset")
    assert health.next_probe("r", now) == now + 0.5

    half = Health(lambda: 0.0)
    half.add("r", 0)
    half.connection_failed("r", 0, "refused")
    assert half.next_probe("r", 0) in (0, 0.25)


def test_backoff_grows_while_trials_fail() -> None:
    health = Health(lambda: 1.0)
    health.add("r", 0)
    health.probe_answered("r", 0, "a")
    now, waits = 100.0, []
    health.connection_failed("r", now, "reset")
    for _ in range(4):
        waits.append(health.next_probe("r", now) - now)
        now += waits[-1]
        health.probe_sent("r", now)
        health.probe_answered("r", now, "a")
        health.request_sent("r", now).failed(500, now)

    assert waits == [0.5, 1, 2, 4]


def test_one_failure_of_many_requests_is_one_failure() -> None:
    health = Health(lambda: 1.0)
    health.add("r", 0)
    health.probe_answered("r", 0, "a")
    for _ in range(50):
        health.connection_failed("r", 1, "reset")

    assert health.next_probe("r", 1) == 1.5


def test_a_hang_is_found_by_silence() -> None:
    world = started(3)
    world.become("r0", Condition.HUNG)
    world.pass_time(5)
    assert "r0" in world.usable()
    world.pass_time(DEFAULTS.stall_seconds - 5 + DEFAULTS.probe_seconds)
    assert "r0" not in world.usable()
    assert world.health.reason("r0").startswith("no token and no answer for 1")

    world.become("r0", Condition.GOOD)
    world.pass_time(30)
    assert world.health.state("r0", world.now) is State.UP


def test_an_idle_replica_that_hangs_is_found_by_its_probes() -> None:
    world = started(2, rate=0)
    world.become("r0", Condition.HUNG)
    world.pass_time(DEFAULTS.stall_seconds + 2 * DEFAULTS.probe_seconds)

    assert world.usable() == {"r1"}


def test_a_long_prefill_is_no_hang() -> None:
    world = started(3)
    world.become("r0", Condition.PREFILLING)
    for _ in range(120):
        world.pass_time(1)
        assert "r0" in world.usable()


def test_clients_that_give_up_do_not_hide_a_hang() -> None:
    health = Health(lambda: 0.5)
    health.add("r", 0)
    health.probe_answered("r", 0, "a")
    for second in range(1, 14):
        health.request_sent("r", second).ended()
    health.request_sent("r", 14)

    assert health.state("r", 14) is State.HUNG


def test_a_pause_of_the_gateway_is_no_hang() -> None:
    world = started(3)
    world.health.request_sent("r0", world.now)
    world.now += 3600

    assert world.health.usable("r0", world.now)


def test_probes_are_more_frequent_than_what_is_taken_for_a_pause() -> None:
    with pytest.raises(ValueError, match="probe_seconds"):
        HealthSettings(stall_seconds=2, probe_seconds=1)


def test_another_identity_stays_out_and_is_told() -> None:
    world = started(3)
    world.become("r0", Condition.OTHER_MODEL)
    world.pass_time(120)
    assert world.health.state("r0", world.now) is State.MISMATCHED
    assert world.health.reason("r0") == "it serves model-2, and the gateway expects model-1"

    world.become("r0", Condition.GOOD)
    world.pass_time(DEFAULTS.max_backoff_seconds + 5)
    assert world.health.state("r0", world.now) is State.UP


def test_tokens_do_not_bring_another_identity_back() -> None:
    health = Health(lambda: 0.5, identity="a")
    health.add("r", 0)
    health.probe_answered("r", 0, "a")
    request = health.request_sent("r", 0)
    health.probe_answered("r", 1, "b")
    request.tokens(1, 1.5)

    assert not health.usable("r", 1.5)


def test_server_errors_in_a_row_take_a_replica_out_but_not_all() -> None:
    world = started(4)
    world.become("r0", Condition.FAILING)
    world.pass_time(5)
    assert "r0" not in world.usable() or world.health.state("r0", world.now) is State.TRIAL

    for name in world.replicas:
        world.become(name, Condition.FAILING)
    world.pass_time(20)
    assert len(world.usable()) >= 3


def test_single_server_errors_do_not() -> None:
    health = Health(lambda: 0.5)
    for name in ("r", "s"):
        health.add(name, 0)
        health.probe_answered(name, 0, "a")
    for second in range(100):
        health.request_sent("r", second).failed(500, second)
        health.request_sent("r", second).failed(503, second)
        health.request_sent("r", second).tokens(1, second)

    assert health.state("r", 100) is State.UP


def test_the_last_replica_is_not_taken_out_for_server_errors() -> None:
    health = Health(lambda: 0.5)
    health.add("r", 0)
    health.probe_answered("r", 0, "a")
    for second in range(10):
        health.request_sent("r", second).failed(500, second)

    assert health.state("r", 10) is State.UP


def test_a_slow_replica_gets_less_and_recovers() -> None:
    world = started(4)
    world.become("r0", Condition.SLOW)
    world.pass_time(60)
    assert world.health.state("r0", world.now) is State.SLOW
    assert world.health.weight("r0", world.now) == DEFAULTS.slow_weight
    assert "times slower" in world.health.reason("r0")

    world.become("r0", Condition.GOOD)
    world.pass_time(60)
    assert world.health.state("r0", world.now) is State.UP


def test_a_slow_replica_without_requests_is_tried_again() -> None:
    world = started(4)
    world.become("r0", Condition.SLOW)
    world.pass_time(60)
    world.rate = 0
    world.pass_time(60)
    assert not world.replicas["r0"].requests

    assert world.health.state("r0", world.now) is State.UP


@pytest.mark.parametrize("count", [2, 3, 5])
def test_slowness_common_to_all_is_nobodys(count: int) -> None:
    world = started(count)
    for name in world.replicas:
        world.become(name, Condition.SLOW)
    for _ in range(60):
        world.pass_time(1)
        assert all(world.health.state(each, world.now) is State.UP for each in world.replicas)


def test_at_most_a_share_is_slow() -> None:
    world = started(9)
    for number in range(4):
        world.become(f"r{number}", Condition.SLOW)
    world.pass_time(120)
    states = [world.health.state(each, world.now) for each in world.replicas]

    assert states.count(State.SLOW) == 3


def test_what_is_unknown_is_out_and_its_events_are_ignored() -> None:
    health = Health(lambda: 0.5)
    request = health.request_sent("r", 0)
    health.probe_sent("r", 0)
    health.probe_answered("r", 0, "a")
    health.probe_timed_out("r", 0)
    health.connection_failed("r", 0, "refused")
    request.tokens(1, 0)
    request.failed(500, 0)
    request.ended()

    assert (health.state("r", 0), health.reason("r")) == (State.OUT, "unknown")
    assert health.weight("r", 0) == 0
    with pytest.raises(KeyError):
        health.next_probe("r", 0)


class Replicas(RuleBasedStateMachine):
    """Whatever happens to replicas: bad ones are out in time, and good ones come back."""

    @initialize(count=st.integers(1, 6), rate=st.sampled_from([0.0, 0.1, 0.5]))
    def start(self, count: int, rate: float) -> None:
        self.world = World(count, rate=rate)
        self.world.pass_time(5)

    @rule(data=st.data(), condition=st.sampled_from(list(Condition)))
    def become(self, data: st.DataObject, condition: Condition) -> None:
        self.world.become(data.draw(st.sampled_from(sorted(self.world.replicas))), condition)

    @rule(condition=st.sampled_from(list(Condition)))
    def all_become(self, condition: Condition) -> None:
        for name in self.world.replicas:
            self.world.become(name, condition)

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @invariant()
    def what_is_bad_is_out(self) -> None:
        world = self.world
        for name, replica in world.replicas.items():
            lasted = world.now - replica.since
            usable = world.health.usable(name, world.now)
            match replica.condition:
                case Condition.DEAD | Condition.OTHER_MODEL:
                    assert not (usable and lasted > DEFAULTS.probe_seconds + 1)
                case Condition.HUNG:
                    limit = DEFAULTS.stall_seconds + DEFAULTS.probe_seconds + 1
                    assert not (usable and lasted > limit)
                case Condition.GOOD | Condition.PREFILLING | Condition.SLOW:
                    back = usable or world.health.state(name, world.now) is State.TRIAL
                    assert back or lasted < DEFAULTS.max_backoff_seconds + 20

    @invariant()
    def few_are_slow(self) -> None:
        states = [self.world.health.state(each, self.world.now) for each in self.world.replicas]
        allowed = max(1, int(DEFAULTS.max_ejected * len(states)))
        assert states.count(State.SLOW) <= allowed

    def teardown(self) -> None:
        for name in self.world.replicas:
            self.world.become(name, Condition.GOOD)
        self.world.rate = 0.5
        self.world.pass_time(120)
        for name in self.world.replicas:
            assert self.world.health.weight(name, self.world.now) == 1


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
