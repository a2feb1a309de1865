"""Replicas in simulated time, and a gateway that probes them and sends them requests."""

from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random

from proctor.server.engines.replicas.balancing.health import Health, HealthSettings, RequestHealth

TICK = 0.25
IDENTITY = "model-1"
PROBE_TIMEOUT = 1.0


class Condition(Enum):
    """What is the matter with a replica."""

    GOOD = auto()
    DEAD = auto()
    HUNG = auto()
    FAILING = auto()
    OTHER_MODEL = auto()
    SLOW = auto()
    PREFILLING = auto()
    """A step takes very long: no tokens, but the engine answers probes."""


@dataclass
class Request:
    """A request that runs for some ticks."""

    health: RequestHealth
    ticks: int = 8


@dataclass
class Replica:
    """A replica: its condition, since when, and what the gateway has under way."""

    condition: Condition = Condition.GOOD
    since: float = 0.0
    requests: list[Request] = field(default_factory=list)
    probed: float | None = None
    sent: int = 0


class World:
    """A gateway and its replicas. Requests come at a constant rate, to each usable replica."""

    def __init__(self, count: int, *, rate: float = 0.5, settings: HealthSettings | None = None):
        self.now = 1000.0
        self.settings = settings or HealthSettings()
        self.rng = Random(1)
        self.rate = rate
        self.health = Health(self.rng.random, self.settings)
        self.replicas = {f"r{number}": Replica() for number in range(count)}
        for name in self.replicas:
            self.health.add(name, self.now)

    def become(self, name: str, condition: Condition) -> None:
        replica = self.replicas[name]
        replica.condition, replica.since = condition, self.now
        if condition in (Condition.DEAD, Condition.OTHER_MODEL):
            self._drop(name, "reset")

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            for name in self.replicas:
                self._probe(name)
                self._generate(name)
                if self.rng.random() < self.rate and self.health.usable(name, self.now):
                    self._send(name)

    def usable(self) -> set[str]:
        return {name for name in self.replicas if self.health.usable(name, self.now)}

    def _drop(self, name: str, reason: str) -> None:
        replica = self.replicas[name]
        requests, replica.requests = replica.requests, []
        for request in requests:
            request.health.ended()
            self.health.connection_failed(name, self.now, reason)

    def _probe(self, name: str) -> None:
        replica = self.replicas[name]
        if replica.probed is None:
            if self.now < self.health.next_probe(name, self.now):
                return
            replica.probed = self.now
            self.health.probe_sent(name, self.now)
        if replica.condition is Condition.HUNG:
            if self.now - replica.probed >= PROBE_TIMEOUT:
                replica.probed = None
                self.health.probe_timed_out(name, self.now)
            return
        replica.probed = None
        if replica.condition is Condition.DEAD:
            self.health.connection_failed(name, self.now, "refused")
        else:
            other = replica.condition is Condition.OTHER_MODEL
            self.health.probe_answered(name, self.now, "model-2" if other else IDENTITY)

    def _send(self, name: str) -> None:
        replica = self.replicas[name]
        replica.sent += 1
        request = self.health.request_sent(name, self.now)
        match replica.condition:
            case Condition.DEAD:
                request.ended()
                self.health.connection_failed(name, self.now, "refused")
            case Condition.FAILING:
                request.failed(500, self.now)
            case _:
                replica.requests.append(Request(request))

    def _generate(self, name: str) -> None:
        replica = self.replicas[name]
        if not self.health.usable(name, self.now) and replica.condition is Condition.HUNG:
            self._give_up(replica)
        if replica.condition in (Condition.HUNG, Condition.PREFILLING):
            return
        if replica.condition is Condition.SLOW and round(self.now / TICK) % 10:
            return
        for request in replica.requests:
            request.health.tokens(1, self.now)
            request.ticks -= 1
            if not request.ticks:
                request.health.ended()
        replica.requests = [each for each in replica.requests if each.ticks]

    @staticmethod
    def _give_up(replica: Replica) -> None:
        for request in replica.requests:
            request.health.ended()
        replica.requests = []
