"""Which replica a request goes to."""

from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proctor.server.engines.replicas.balancing.assignment import Assignment
from proctor.server.engines.replicas.balancing.balancer import Balancer, NoReplica


def balancer(replicas: int) -> Balancer:
    made = Balancer(block_tokens=16)
    for number in range(replicas):
        made.add(f"r{number}")
    return made


def prompt(seed: int, tokens: int = 160) -> tuple[int, ...]:
    rng = Random(seed)
    return tuple(rng.randrange(150_000) for _ in range(tokens))


def assign(
    to: Balancer, ids: tuple[int, ...], *, key: str = "low", limit: int = 100, salt: str = ""
) -> Assignment:
    return to.assign(ids, salt=salt, budget_key=key, limit=limit)


def test_a_growing_prompt_stays_where_it_is_cached() -> None:
    balanced = balancer(16)
    ids = prompt(1)
    home = assign(balanced, ids)
    assert home.cached_tokens == 0

    for turn in range(2, 6):
        home.finish()
        ids += prompt(turn, 50)
        again = assign(balanced, ids)
        assert again.replica == home.replica
        assert again.cached_tokens >= 16 * (len(ids) // 16) - 64
        home = again


def test_gateways_send_a_new_prompt_to_the_same_replica() -> None:
    one, other = balancer(16), balancer(16)

    for seed in range(50):
        first, second = assign(one, prompt(seed)), assign(other, prompt(seed))
        assert first.replica == second.replica
        first.finish()
        second.finish()


def test_gateways_agree_on_a_conversation_that_only_one_has_seen() -> None:
    one, other = balancer(8), balancer(8)
    shared = prompt(0)
    for name in [f"r{number}" for number in range(8)]:
        for gateway in (one, other):
            others = {f"r{number}" for number in range(8)} - {name}
            gateway.assign(shared, salt="", budget_key="low", limit=100, excluded=others).finish()

    for seed in range(1, 30):
        first = assign(one, shared + prompt(seed))
        first.finish()
        second = assign(other, shared + prompt(seed) + prompt(seed + 100))
        second.finish()
        assert first.replica == second.replica


def test_new_prompts_are_spread_in_proportion_to_capacity() -> None:
    balanced = balancer(3)
    balanced.add("r0", 3.0)
    counts: Counter[str] = Counter()
    for seed in range(1500):
        assignment = assign(balanced, prompt(seed, 16), limit=1)
        counts[assignment.replica] += 1
        assignment.finish()

    assert 800 < counts["r0"] < 1000
    assert 220 < counts["r1"] < 380


def test_a_replica_that_leaves_takes_only_its_own() -> None:
    before, after = balancer(8), balancer(8)
    after.remove("r3")

    for seed in range(100):
        first, second = assign(before, prompt(seed)), assign(after, prompt(seed))
        assert first.replica in (second.replica, "r3")
        first.finish()
        second.finish()


def test_tenants_do_not_share_caches() -> None:
    balanced = balancer(4)
    assign(balanced, prompt(1), salt="a").finish()

    assert assign(balanced, prompt(1), salt="b").cached_tokens == 0
    assert assign(balanced, prompt(1), salt="a").cached_tokens == 160


def test_a_busy_home_is_left_for_another() -> None:
    balanced = balancer(4)
    ids = prompt(1)
    home = assign(balanced, ids)
    assert assign(balanced, ids).replica == home.replica, "a little work does not count"
    others = [assign(balanced, ids) for _ in range(400)]

    counts = Counter(each.replica for each in others)
    assert len(counts) == 4
    assert max(counts.values()) < 200


def test_work_counts_as_far_as_it_runs_beside_a_request() -> None:
    balanced = balancer(2)
    long = [
        balanced.assign((), salt="", budget_key="high", limit=50_000, excluded=["r1"])
        for _ in range(3)
    ]
    short = [
        balanced.assign((), salt="", budget_key="low", limit=60, excluded=["r0"]) for _ in range(6)
    ]
    assert balanced.outstanding() == {"r0": 150_000, "r1": 360}

    assert assign(balanced, (), limit=64).replica == "r0", "three others beside it, not six"
    assert assign(balanced, (), key="high", limit=50_000).replica == "r1"
    for each in long:
        each.progress(49_990)
    assert balanced.outstanding()["r0"] == 30 + 60
    assert len(short) == 6


def test_long_contexts_are_more_work() -> None:
    balanced = balancer(2)
    for seed, (tokens, other) in enumerate([(40_000, "r1"), (10, "r0"), (10, "r0")]):
        ids = prompt(seed, tokens)
        balanced.assign(ids, salt="", budget_key="low", limit=600, excluded=[other]).progress(1)

    assert assign(balanced, prompt(9), limit=600).replica == "r1"


def test_expectations_shrink_with_the_tokens_that_come() -> None:
    balanced = balancer(1)
    first = assign(balanced, prompt(1), limit=1000)
    assert balanced.outstanding() == {"r0": 1000}

    first.progress(100)
    assert balanced.outstanding() == {"r0": 900}
    first.finish()
    first.finish()
    first.progress(5)
    assert balanced.outstanding() == {"r0": 0}

    assign(balanced, prompt(1), limit=1000)
    assert 500 < balanced.outstanding()["r0"] < 600, "half the limit, half what was learned"


def test_a_session_is_found_by_a_gateway_that_never_saw_it() -> None:
    one, other = balancer(8), balancer(8)
    shared = prompt(0)
    for seed in range(1, 20):
        # The prompts that both know are on different replicas.
        assign(one, shared + prompt(seed)).finish()
    for seed in range(20, 60):
        first = one.assign(
            shared + prompt(seed), salt="a", budget_key="low", limit=9, session=f"s{seed}"
        )
        first.finish()
        second = other.assign(
            shared + prompt(seed), salt="a", budget_key="low", limit=9, session=f"s{seed}"
        )
        second.finish()
        assert second.replica == first.replica


def test_a_session_stays_where_it_has_moved() -> None:
    balanced = balancer(4)
    ids = prompt(1)

    def call() -> Assignment:
        return balanced.assign(ids, salt="", budget_key="low", limit=100, session="s")

    home = call()
    home.finish()
    moved = balanced.assign(
        ids, salt="", budget_key="low", limit=100, session="s", excluded=[home.replica]
    )
    moved.finish()
    ids += prompt(2)
    balanced.assign(
        ids, salt="", budget_key="low", limit=100, session="s", excluded=[home.replica]
    ).finish()

    ids += prompt(3)
    assert call().replica == moved.replica


def test_nothing_is_learned_from_an_aborted_request() -> None:
    balanced = balancer(1)
    assign(balanced, prompt(1), limit=1000).abort()

    assign(balanced, prompt(1), limit=1000)
    assert balanced.outstanding() == {"r0": 1000}


def test_a_replica_that_comes_back_holds_nothing() -> None:
    balanced = balancer(1)
    late = assign(balanced, prompt(1))
    balanced.remove("r0")
    balanced.add("r0")
    late.finish()

    assert assign(balanced, prompt(1)).cached_tokens == 0


def test_none_left_is_told() -> None:
    with pytest.raises(NoReplica):
        assign(Balancer(), prompt(1))
    balanced = balancer(2)
    with pytest.raises(NoReplica):
        balanced.assign((), salt="", budget_key=0, limit=1, excluded=["r0", "r1"])
    assert balanced.assign((), salt="", budget_key=0, limit=1, excluded=["r0"]).replica == "r1"
    with pytest.raises(ValueError, match="capacity"):
        balanced.add("r2", 0)


class Balancing(RuleBasedStateMachine):
    """Work is never negative, is zero without requests, and no replica exceeds its bound."""

    def __init__(self) -> None:
        super().__init__()
        self.balancer = Balancer(block_tokens=4, max_blocks=64)
        self.running: list[Assignment] = []
        self.names: set[str] = set()

    @rule(number=st.integers(0, 5), capacity=st.sampled_from([0.25, 1.0, 2.0]))
    def add(self, number: int, capacity: float) -> None:
        self.balancer.add(f"r{number}", capacity)
        self.names.add(f"r{number}")

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.names)))
        self.balancer.remove(name)
        self.names.discard(name)

    @precondition(lambda self: self.names)
    @rule(
        seed=st.integers(0, 3),
        tokens=st.integers(0, 40),
        key=st.sampled_from(["low", "high"]),
        limit=st.integers(0, 5000),
        data=st.data(),
    )
    def assign(self, seed: int, tokens: int, key: str, limit: int, data: st.DataObject) -> None:
        excluded = data.draw(st.sets(st.sampled_from(sorted(self.names))))
        ids = prompt(seed, tokens)
        try:
            assignment = self.balancer.assign(
                ids, salt="", budget_key=key, limit=limit, excluded=excluded
            )
        except NoReplica:
            assert excluded == self.names
            return
        assert assignment.replica in self.names - excluded
        assert 0 <= assignment.cached_tokens <= tokens
        self.running.append(assignment)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(0, 3000))
    def progress(self, data: st.DataObject, tokens: int) -> None:
        data.draw(st.sampled_from(self.running)).progress(tokens)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), aborted=st.booleans())
    def end(self, data: st.DataObject, aborted: bool) -> None:
        assignment = data.draw(st.sampled_from(self.running))
        self.running.remove(assignment)
        assignment.abort() if aborted else assignment.finish()

    @invariant()
    def work_is_accounted_for(self) -> None:
        works = self.balancer.outstanding()
        assert set(works) == self.names
        for name, work in works.items():
            assert work >= -1e-6
            if all(each.replica != name for each in self.running):
                assert abs(work) < 1e-6


TestBalancing = Balancing.TestCase
TestBalancing.settings = settings(max_examples=50, stateful_step_count=40)
