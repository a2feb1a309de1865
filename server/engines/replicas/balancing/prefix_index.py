"""Which replicas are believed to have the prefix of a prompt in their cache."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b


def chain(prompt_ids: Sequence[int], block_tokens: int, salt: str) -> list[int]:
    """Return a hash for each full block of a prompt, which covers everything up to its end.

    Args:
        prompt_ids: token ids of the prompt.
        block_tokens: the number of tokens of a block.
        salt: separates tenants: equal prompts of two salts have no hash in common.
    """
    ids = tuple(prompt_ids)
    link = text_number(salt)
    links = []
    # Tuples of integers hash alike in every process (only strings are randomized), so that
    # gateways agree, and faster than through bytes. Whoever forges a collision only
    # sends their own requests to a worse replica: the replicas' caches have hashes of their own.
    for start in range(0, len(ids) - block_tokens + 1, block_tokens):
        link = hash((link, ids[start : start + block_tokens]))
        links.append(link)
    return links


@lru_cache(maxsize=4096)
def text_number(text: str) -> int:
    """Return a hash of a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "little")


class PrefixIndex:
    """Remembers which blocks were sent to which replicas, as long as they were used recently.

    A replica occupies a slot, and a block maps to a bitmask of slots. Blocks are kept in two
    generations: what is used moves to the young one, and when that is full, the old one is
    dropped and the young one becomes old. That approximates the replicas' LRU caches in bounded
    memory, without bookkeeping for each block.
    """

    def __init__(self, max_blocks: int) -> None:
        """Initialize an empty index.

        Args:
            max_blocks: the maximum number of blocks over all replicas, about 100 bytes each.
        """
        self._generation_size = max(1, max_blocks // 2)
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._rotations = 0
        self._live = 0
        self._freed: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self) -> int:
        """Return the slot of a new replica, which holds nothing."""
        slot = self._reusable_slot()
        self._live |= 1 << slot
        return slot

    def remove(self, slot: int) -> None:
        """Forget everything that a replica holds, and its slot."""
        self._live &= ~(1 << slot)
        self._freed.append((self._rotations, slot))

    def _reusable_slot(self) -> int:
        # Two rotations after a slot was freed, every block has been written since, and writing
        # clears the bits of slots that are not live.
        if self._freed and self._freed[0][0] + 2 <= self._rotations:
            return self._freed.pop(0)[1]
        highest = max([self._live.bit_length() - 1, *(slot for _, slot in self._freed)])
        return highest + 1

    def record(self, links: Sequence[int], slot: int) -> None:
        """Record that a prompt was sent to a replica.

        Args:
            links: the prompt's blocks, from `chain`.
            slot: the replica.
        """
        bit = 1 << slot
        # From the last block on: if a rotation comes between, the end of a chain is dropped first.
        for link in reversed(links):
            held = self._young.get(link)
            if held is None:
                held = self._old.get(link, 0)
                if len(self._young) >= self._generation_size:
                    self._rotate()
            self._young[link] = held & self._live | bit

    def _rotate(self) -> None:
        self._old, self._young = self._young, {}
        self._rotations += 1

    def match(self, links: Sequence[int]) -> dict[int, int]:
        """Return how many of a prompt's blocks each replica holds, by slot, if any."""
        matched: dict[int, int] = {}
        unseen = self._live
        for depth in range(self._deepest(links), 0, -1):
            held = self._held(links[depth - 1]) & unseen
            if held:
                matched |= dict.fromkeys(_bits(held), depth)
                unseen &= ~held
                if not unseen:
                    break
        return matched

    def _deepest(self, links: Sequence[int]) -> int:
        """Return how many blocks any replica holds: who holds a block holds all before it."""
        return bisect_left(links, True, key=lambda link: not self._held(link) & self._live)

    def _held(self, link: int) -> int:
        return self._young.get(link) or self._old.get(link, 0)


def _bits(mask: int) -> Iterator[int]:
    """Yield the positions of the bits that are set."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
