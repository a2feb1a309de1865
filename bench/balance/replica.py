"""A simulated replica: continuous batching, a prefix cache, and a cost for each step."""

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from bench.balance.trace import BLOCK_TOKENS, Call


@dataclass(frozen=True)
class Costs:
    """What a step costs and what fits, roughly that of an 8B model in bf16 on one H100.

    Attributes:
        step_seconds: each step: the weights are read once.
        row_seconds: each request that generates a token.
        context_seconds: each token in the caches of these requests, which are read.
        prefill_seconds: each token of a prompt.
        step_tokens: the maximum number of tokens of a step (`max_num_batched_tokens`).
        max_requests: the maximum number of running requests (`max_num_seqs`).
        cache_blocks: the size of the cache.
    """

    step_seconds: float = 0.008
    row_seconds: float = 50e-6
    context_seconds: float = 50e-9
    prefill_seconds: float = 1 / 20_000
    step_tokens: int = 8192
    max_requests: int = 256
    cache_blocks: int = 380_000 // BLOCK_TOKENS


MAX_STEPS = 32
"""Equal steps are simulated together, up to this number; an arrival ends them earlier."""


@dataclass(eq=False, slots=True)
class Request:
    """A call on a replica.

    Attributes:
        call: the call.
        progress: called with each number of tokens that were generated, and the time.
        finished: called with the time at the end.
        cached_tokens: tokens of the prompt that were cached when it was first admitted.
        to_prefill: tokens to prefill before the next token.
        generated: tokens so far.
        held: blocks of the prompt, shared with other requests.
        own_blocks: the number of other blocks that it occupies.
    """

    call: Call
    progress: Callable[[int, float], None]
    finished: Callable[[float], None]
    cached_tokens: int = -1
    to_prefill: int = 0
    generated: int = 0
    held: list[int] | None = None
    own_blocks: int = 0

    @property
    def context(self) -> int:
        return len(self.call.prompt.ids) + self.generated


class BlockCache:
    """Blocks in use by requests, and blocks that are kept for later ones: LRU."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._users: dict[int, int] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()
        self.own_blocks = 0

    @property
    def used(self) -> int:
        """The number of blocks that running requests occupy."""
        return len(self._users) + self.own_blocks

    @property
    def room(self) -> int:
        """The number of blocks that are free, or kept only for later."""
        return self.capacity - self.used

    def cached(self, blocks: list[int]) -> int:
        """Return how many of a prompt's blocks are cached, from its start."""
        for number, block in enumerate(blocks):
            if block not in self._users and block not in self._kept:
                return number
        return len(blocks)

    def take(self, blocks: list[int]) -> None:
        for block in blocks:
            self._kept.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1
        self.evict()

    def give_back(self, blocks: list[int]) -> None:
        # The end of a prompt is evicted before its start.
        for block in reversed(blocks):
            if self._users[block] > 1:
                self._users[block] -= 1
            else:
                del self._users[block]
                self._kept[block] = None

    def keep(self, blocks: list[int]) -> None:
        """Keep blocks that were generated and that later prompts may begin with."""
        for block in blocks:
            if block not in self._users:
                self._kept[block] = None
        self.evict()

    def evict(self) -> None:
        while self._kept and len(self._kept) > self.room:
            self._kept.popitem(last=False)


class Replica:
    """A queue and a batch, in simulated time.

    The caller runs it: `submit` and `advance` return when `advance` is to be called next, None
    for never. A call at another time than the last one returned is without effect.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.cache = BlockCache(costs.cache_blocks)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.preemptions = 0
        self._began = 0.0
        self._steps = 0
        self._step_seconds = 0.0
        self._prefills: list[tuple[Request, int]] = []

    @property
    def due(self) -> float | None:
        """When the steps under way end, None if there are none."""
        return self._began + self._steps * self._step_seconds if self._steps else None

    @property
    def context_tokens(self) -> int:
        """The tokens of all its requests, waiting ones included."""
        return sum(each.context for each in (*self.running, *self.waiting))

    def submit(self, request: Request, now: float) -> float | None:
        self.waiting.append(request)
        if not self._steps:
            return self._begin(now)
        # Steps end early for whom comes meanwhile, but none in the middle.
        passed = math.ceil((now - self._began) / self._step_seconds - 1e-9)
        self._steps = max(1, min(self._steps, passed))
        return self.due

    def advance(self, now: float) -> float | None:
        if self.due != now:
            return self.due
        steps, self._steps = self._steps, 0
        self._generate(steps, now)
        return self._begin(now)

    def _begin(self, now: float) -> float | None:
        self._admit()
        if not self.running:
            return None
        costs = self._costs
        rows = [each for each in self.running if not each.to_prefill]
        left = costs.step_tokens - len(rows)
        self._prefills = []
        for each in self.running:
            if each.to_prefill and left > 0:
                part = min(each.to_prefill, left)
                self._prefills.append((each, part))
                left -= part
        self._step_seconds = (
            costs.step_seconds
            + costs.row_seconds * len(rows)
            + costs.context_seconds * sum(each.context for each in rows)
            + costs.prefill_seconds * sum(part for _, part in self._prefills)
        )
        self._began = now
        self._steps = 1 if self._prefills else self._equal_steps(rows)
        return self.due

    def _equal_steps(self, rows: list[Request]) -> int:
        steps = min([MAX_STEPS, *(each.call.output - each.generated for each in rows)])
        needed = len(rows) * (1 + steps // BLOCK_TOKENS)
        return steps if self.cache.room >= needed else 1

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._costs.max_requests:
            request = self.waiting[0]
            blocks = request.call.prompt.blocks
            cached = self.cache.cached(blocks)
            tokens = request.context
            own = math.ceil((tokens + 1) / BLOCK_TOKENS) - len(blocks)
            # Blocks that are cached but unused are counted as new ones: a little too strict.
            needed = len(blocks) - cached + own
            if self.running and needed > self.cache.room:
                return
            self.waiting.popleft()
            self.cache.own_blocks += own
            self.cache.take(blocks)
            if request.cached_tokens < 0:
                request.cached_tokens = cached * BLOCK_TOKENS
            # Of a prompt that is cached wholly, vLLM computes the last token again.
            request.to_prefill = max(1, tokens - cached * BLOCK_TOKENS)
            request.held, request.own_blocks = blocks, own
            self.running.append(request)

    def _generate(self, steps: int, now: float) -> None:
        rows = [each for each in self.running if not each.to_prefill]
        for each, part in self._prefills:
            each.to_prefill -= part
            if not each.to_prefill:
                rows.append(each)
        for each in rows:
            each.generated += steps
            own = math.ceil(each.context / BLOCK_TOKENS) - len(each.held or ())
            self.cache.own_blocks += own - each.own_blocks
            each.own_blocks = own
            each.progress(steps, now)
        for each in rows:
            if each.generated >= each.call.output:
                self._release(each)
                self.cache.keep(each.call.sequence.blocks)
                each.finished(now)
        self.cache.evict()
        while self.cache.room < 0 and len(self.running) > 1:
            self._preempt()

    def _preempt(self) -> None:
        self.preemptions += 1
        request = self.running[-1]
        self._release(request)
        self.waiting.appendleft(request)

    def _release(self, request: Request) -> None:
        self.running.remove(request)
        self.cache.own_blocks -= request.own_blocks
        self.cache.give_back(request.held or [])
        request.own_blocks, request.held = 0, None
