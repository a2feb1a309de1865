"""Which replicas hold a prefix."""

import os
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.engines.replicas.balancing.prefix_index import PrefixIndex, chain

IDS = st.lists(st.integers(0, 200_000), max_size=40)


@given(IDS, IDS, IDS)
def test_equal_hashes_are_equal_prefixes(
    shared: list[int], one: list[int], other: list[int]
) -> None:
    first, second = shared + one, shared + other
    links = list(zip(chain(first, 4, "a"), chain(second, 4, "a"), strict=False))

    for block, (left, right) in enumerate(links, 1):
        assert (left == right) == (first[: 4 * block] == second[: 4 * block])


@given(IDS)
def test_only_full_blocks_count_and_any_sequence_is_taken(ids: list[int]) -> None:
    assert len(chain(ids, 4, "a")) == len(ids) // 4
    assert chain(ids, 4, "a") == chain(tuple(ids), 4, "a")


def test_tenants_share_nothing() -> None:
    ids = range(64)

    assert not set(chain(ids, 4, "a")) & set(chain(ids, 4, "b"))


@pytest.mark.parametrize("seed", ["0", "1"])
def test_all_processes_hash_alike(seed: str) -> None:
    code = (
        "from proctor.server.engines.replicas.balancing.prefix_index import chain\n"
        "print(chain(range(100_000, 100_064), 16, 'tenant'))"
    )
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert told.stdout.strip() == str(chain(range(100_000, 100_064), 16, "tenant"))


def test_each_replica_holds_what_was_sent_to_it() -> None:
    index = PrefixIndex(1000)
    one, other = index.add(), index.add()
    index.record([1, 2, 3], one)
    index.record([1, 2, 7], other)

    assert index.match([1, 2, 3, 4]) == {one: 3, other: 2}
    assert index.match([1, 9]) == {one: 1, other: 1}
    assert index.match([9]) == index.match([]) == {}


def test_a_removed_replica_holds_nothing_nor_does_its_successor() -> None:
    index = PrefixIndex(8)
    kept, removed = index.add(), index.add()
    index.record([1, 2], kept)
    index.record([1, 2], removed)
    index.remove(removed)

    assert index.match([1, 2]) == {kept: 2}
    for link in range(100, 200):
        index.record([1, 2], kept)
        index.record([link], kept)
        successor = index.add()
        assert successor not in index.match([1, 2])
        index.remove(successor)


def test_the_least_recently_used_is_forgotten() -> None:
    index = PrefixIndex(100)
    slot = index.add()
    index.record([1, 2, 3], slot)
    index.record([4, 5, 6], slot)
    for link in range(1000, 1200):
        index.record([1, 2, 3], slot)
        index.record([link], slot)

    assert index.match([1, 2, 3]) == {slot: 3}
    assert index.match([4, 5, 6]) == {}


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_memory_is_bounded_and_matches_are_true(seed: int, size: int) -> None:
    """Whatever comes, no replica is believed to hold what it was not sent; slots are few."""
    rng, index = Random(seed), PrefixIndex(size)
    sent: dict[int, set[int]] = {index.add(): set()}
    for _ in range(200):
        action, slot = rng.random(), rng.choice(list(sent))
        if action < 0.1 and len(sent) < 4:
            sent[index.add()] = set()
        elif action < 0.2 and len(sent) > 1:
            index.remove(slot)
            del sent[slot]
        else:
            start = rng.randrange(20) * 10
            links = range(start, start + rng.randrange(10))
            index.record(links, slot)
            sent[slot].update(links)
        probe = range(start := rng.randrange(20) * 10, start + 10)
        for holder, depth in index.match(probe).items():
            assert sent[holder].issuperset(probe[:depth])
        assert len(index) <= max(2, size)
