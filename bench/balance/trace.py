"""A synthetic trace: sessions of agents, chats, and proofs, from a seed."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

BLOCK_TOKENS = 128
"""The size of the blocks of simulated caches. vLLM's are of 16; larger ones are faster to count."""

TENANTS = 10
TENANT_WEIGHTS = [1 / (1 + tenant) for tenant in range(TENANTS)]
"""Some tenants have many times the sessions of others."""

MAX_CONTEXT = 60_000

AGENT_PROMPTS = 3
"""System prompts with tools, for each tenant; chats have one."""


@dataclass(frozen=True)
class Budget:
    """What a gateway knows of how much a request may generate."""

    name: str
    limit: int


AGENT = Budget("low", 4096)
CHAT = Budget("medium", 8192)
PROOF = Budget("high", 32_768)


@dataclass(eq=False, slots=True)
class Text:
    """Tokens, and the full blocks that they are cached in.

    Attributes:
        ids: token ids; what was added at once is one number, which no other text has.
        blocks: an id for each full block, which stands for everything up to its end.
    """

    ids: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def extended(self, tokens: int, numbers: Iterator[int]) -> "Text":
        """Return the text followed by other tokens, with unused numbers as their ids."""
        ids = self.ids + [next(numbers)] * tokens
        new = len(ids) // BLOCK_TOKENS - len(self.blocks)
        return Text(ids, self.blocks + [next(numbers) for _ in range(new)])


@dataclass(eq=False, slots=True)
class Call:
    """One request.

    Attributes:
        session: the session that it belongs to.
        prompt: its prompt.
        output: how many tokens it generates, which no policy knows.
        sequence: prompt and output, as far as the next call of the session begins with them.
    """

    session: "Session"
    prompt: Text
    output: int
    sequence: Text


@dataclass(eq=False)
class Session:
    """Calls of which each is sent some time after the one before has ended.

    Attributes:
        name: unique in the trace.
        tenant: whose it is; caches are not shared between tenants.
        budget: that of each call.
        start: when the first call is sent, in seconds.
        calls: the calls, each with the pause before it in seconds.
    """

    name: str
    tenant: str
    budget: Budget
    start: float
    calls: Iterator[tuple[float, Call]] = field(default_factory=lambda: iter(()))


@dataclass(frozen=True)
class Rates:
    """Sessions that begin, for each replica and minute."""

    agents: float
    chats: float
    proofs: float

    def scaled(self, factor: float) -> "Rates":
        return Rates(self.agents * factor, self.chats * factor, self.proofs * factor)


def sessions(seed: int, rates: Rates, replicas: int, seconds: float) -> list[Session]:
    """Return all sessions that begin within some time, by their start."""
    rng = Random(seed)
    systems = _SystemPrompts(rng)
    made: list[Session] = []
    kinds = (
        (_agent, AGENT, rates.agents),
        (_chat, CHAT, rates.chats),
        (_proof, PROOF, rates.proofs),
    )
    for calls, budget, rate in kinds:
        now = 0.0
        while rate and (now := now + rng.expovariate(rate * replicas / 60)) < seconds:
            (tenant,) = rng.choices(range(TENANTS), TENANT_WEIGHTS)
            session = Session(f"{budget.name}-{len(made)}", str(tenant), budget, now)
            own = Random(rng.getrandbits(64))
            system = systems.choose(own, tenant, budget)
            session.calls = calls(session, own, system, itertools.count((len(made) + 1) << 20))
            made.append(session)
    return sorted(made, key=lambda each: each.start)


class _SystemPrompts:
    """The texts that the sessions of a tenant begin with."""

    def __init__(self, rng: Random) -> None:
        numbers = itertools.count(1)
        self._tools = [
            [Text().extended(rng.randrange(3000, 12_000), numbers) for _ in range(AGENT_PROMPTS)]
            for _ in range(TENANTS)
        ]
        self._greetings = [
            Text().extended(rng.randrange(200, 1500), numbers) for _ in range(TENANTS)
        ]

    def choose(self, rng: Random, tenant: int, budget: Budget) -> Text:
        return rng.choice(self._tools[tenant]) if budget is AGENT else self._greetings[tenant]


def _agent(
    session: Session, rng: Random, system: Text, numbers: Iterator[int]
) -> Iterator[tuple[float, Call]]:
    """Yield calls that follow each other quickly, whose thinking stays in the prompt."""
    text = system.extended(_tokens(rng, 400, 0.8), numbers)
    for _ in range(1 + int(rng.expovariate(1 / 20))):
        output = min(_tokens(rng, 180, 0.8), session.budget.limit)
        sequence = text.extended(output, numbers)
        yield rng.lognormvariate(math.log(1.5), 1.0), Call(session, text, output, sequence)
        text = sequence.extended(_tokens(rng, 500, 1.2), numbers)
        if len(text.ids) > MAX_CONTEXT:
            return


def _chat(
    session: Session, rng: Random, system: Text, numbers: Iterator[int]
) -> Iterator[tuple[float, Call]]:
    """Yield the messages of a person, who reads; thinking is dropped from the prompt."""
    text = system.extended(_tokens(rng, 100, 1.0), numbers)
    for _ in range(1 + int(rng.expovariate(1 / 4))):
        output = min(_tokens(rng, 500, 0.8), session.budget.limit)
        yield rng.lognormvariate(math.log(20), 0.7), Call(session, text, output, text)
        text = text.extended(output // 2 + _tokens(rng, 60, 1.0), numbers)


def _proof(
    session: Session, rng: Random, system: Text, numbers: Iterator[int]
) -> Iterator[tuple[float, Call]]:
    """Yield one short question, and long thinking."""
    text = system.extended(_tokens(rng, 200, 0.5), numbers)
    yield 0.0, Call(session, text, min(_tokens(rng, 6000, 0.9), session.budget.limit), text)


def _tokens(rng: Random, median: float, sigma: float) -> int:
    return max(1, min(20_000, round(rng.lognormvariate(math.log(median), sigma))))
