"""Which replica a request goes to."""

from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proctor.server.engines.replicas.balancer import Assignment, Balancer, NoReplica


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


def test_a_loaded_home_is_left() -> None:
    balanced = balancer(4)
    ids = prompt(1)
    home = assign(balanced, ids)
    assert assign(balanced, ids).replica == home.replica, "little load does not count"
    busy = assign(balanced, ids, key="high", limit=50_000)
    assert busy.replica == home.replica

    elsewhere = assign(balanced, ids)
    assert elsewhere.replica != home.replica
    busy.progress(50_000)
    holders = {home.replica, elsewhere.replica}
    assert all(assign(balanced, ids).replica in holders for _ in range(4))


def test_load_is_what_is_still_expected() -> None:
    balanced = balancer(1)
    first = assign(balanced, prompt(1), limit=1000)
    assert balanced.outstanding() == {"r0": 1000 + 16}

    first.progress(10)
    assert balanced.outstanding() == {"r0": 990}
    first.progress(90)
    first.finish()
    first.finish()
    first.progress(5)
    assert balanced.outstanding() == {"r0": 0}

    assign(balanced, prompt(1), limit=1000)
    assert 500 < balanced.outstanding()["r0"] < 600, "half the prior, half what was learned"


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
