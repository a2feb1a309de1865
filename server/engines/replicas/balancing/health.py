"""Which replicas are healthy: health is progress, not an open port."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from proctor.server.engines.replicas.balancing.pace import Pace


class State(StrEnum):
    """The state of a replica.

    Attributes:
        OUT: takes no requests; it is probed, with exponential backoff.
        HUNG: the same, as it neither generates nor answers; its requests will not end.
        MISMATCHED: the same, as it serves something else than the gateway expects.
        TRIAL: it was out, and has answered a probe: takes one request at a time, until one
            yields a token.
        UP: takes requests.
        SLOW: takes fewer requests, as it is many times slower than its peers.
    """

    OUT = "out"
    HUNG = "hung"
    MISMATCHED = "mismatched"
    TRIAL = "trial"
    UP = "up"
    SLOW = "slow"


AWAY = (State.OUT, State.HUNG, State.MISMATCHED)
PRESENT = (State.UP, State.SLOW)

COMPARE_SECONDS = 1.0
"""How often the pace of a replica is compared with that of its peers."""


@dataclass(frozen=True)
class HealthSettings:
    """When replicas are taken out, and how they come back.

    Attributes:
        stall_seconds: a replica is hung if for this long it has neither generated a token nor
            answered a probe.
        probe_seconds: how often a replica is probed; less than half of `stall_seconds`.
        max_failures: after this many responses of status 5xx in a row, a replica is taken out.
        first_backoff_seconds: for how long a replica that was taken out is left alone at first;
            twice as long each time that it fails again.
        max_backoff_seconds: the longest backoff. Who was up for as long starts again with the
            first.
        slow_factor: a replica is slow from this multiple of its peers' median on, until it is
            below the square root of it.
        slow_weight: the share of its capacity that a slow replica, or one on trial, is given.
        slow_seconds: after as long without a sample, a slow replica is up again.
        max_ejected: at most this share of the replicas, but one of two, may be slow or out
            because of 5xx at a time. Dead, hung and mismatched replicas are out in any case.
    """

    stall_seconds: float = 10.0
    probe_seconds: float = 2.0
    max_failures: int = 3
    first_backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0
    slow_factor: float = 4.0
    slow_weight: float = 0.2
    slow_seconds: float = 30.0
    max_ejected: float = 0.34

    def __post_init__(self) -> None:
        if not 0 < self.probe_seconds < self.stall_seconds / 2:
            # A longer silence of the gateway itself is taken for a pause.
            raise ValueError("probe_seconds must be less than half of stall_seconds")


class _Replica:
    """What is known of a replica.

    Attributes:
        running: requests that were sent and have not ended.
        failures: responses of status 5xx in a row.
        attempts: how often it was taken out without having been up for long.
        ejected: whether it is out, or on trial, because of 5xx.
        up_since: when it came up.
        waiting_since: since when something is awaited and nothing was heard; None if something
            was heard since the last request or probe.
        probing: whether a probe is under way.
        next_probe: when to probe it again.
        compared: when its pace was last compared.
    """

    def __init__(self, now: float) -> None:
        self.state = State.OUT
        self.reason = "not probed yet"
        self.running = 0
        self.failures = 0
        self.attempts = 0
        self.ejected = False
        self.up_since = now
        self.waiting_since: float | None = None
        self.probing = False
        self.next_probe = now
        self.compared = now
        self.pace = Pace(now)

    def wait(self, now: float) -> None:
        if self.waiting_since is None:
            self.waiting_since = now

    def hear(self, now: float) -> None:
        self.waiting_since = now if self.running or self.probing else None

    def come_up(self, now: float) -> None:
        self.state, self.reason, self.up_since = State.UP, "", now
        self.ejected = False


class Health:
    """The state of each replica, from events that the caller reports with their time.

    A replica is taken out when a connection to it fails, when it hangs, when it serves something
    else than before, or after several responses of status 5xx in a row. It comes back on trial
    when it answers a probe, and is up with the first token after that. One that was never
    out before is up with its first answer. Slow replicas get fewer requests.

    The caller probes each replica when `next_probe` says so. A probe is a handshake that the
    engine answers, not only the HTTP server in front of it, so that an answer shows progress.
    """

    def __init__(
        self,
        random: Callable[[], float],
        settings: HealthSettings | None = None,
        *,
        identity: str | None = None,
    ) -> None:
        """Initialize without replicas.

        Args:
            random: returns numbers from 0 to 1, for the jitter of backoffs.
            settings: when replicas are taken out, and how they come back.
            identity: what probes must be answered with: a hash of model, weights, markers and
                vocabulary. None takes it from the first answer.
        """
        self.identity = identity
        self._random = random
        self._settings = settings or HealthSettings()
        self._replicas: dict[str, _Replica] = {}
        self._now = -math.inf

    def add(self, replica: str, now: float) -> None:
        """Add a replica, out until it answers a probe. A known one is left as it is."""
        self._observe(now)
        if replica not in self._replicas:
            self._replicas[replica] = _Replica(now)

    def remove(self, replica: str) -> None:
        """Forget a replica. What is still reported of its requests is ignored."""
        self._replicas.pop(replica, None)

    def state(self, replica: str, now: float) -> State:
        """Return the state of a replica; OUT if it is unknown."""
        self._observe(now)
        found = self._replicas.get(replica)
        if found is None:
            return State.OUT
        self._check_time(found, now)
        return found.state

    def reason(self, replica: str) -> str:
        """Return why a replica is not up, for logs and errors; empty if it is."""
        found = self._replicas.get(replica)
        return "unknown" if found is None else found.reason

    def weight(self, replica: str, now: float) -> float:
        """Return the share of its capacity that a replica may be given; 0 is none."""
        match self.state(replica, now):
            case State.UP:
                return 1.0
            case State.SLOW:
                return self._settings.slow_weight
            case State.TRIAL if not self._replicas[replica].running or self._none_is_up():
                return self._settings.slow_weight
        return 0.0

    def usable(self, replica: str, now: float) -> bool:
        """Return whether a request may be sent to a replica."""
        return self.weight(replica, now) > 0

    def next_probe(self, replica: str, now: float) -> float:
        """Return when to probe a replica; a time in the past means now.

        Raises:
            KeyError: if the replica is unknown.
        """
        self.state(replica, now)
        return self._replicas[replica].next_probe

    def request_sent(self, replica: str, now: float, *, prefill_tokens: int = 0) -> "RequestHealth":
        """Report that a request is sent.

        Args:
            replica: its name.
            now: the time.
            prefill_tokens: how many tokens of the prompt are not expected in its cache.

        Returns:
            What the rest of the request is reported to.
        """
        self._observe(now)
        found = self._replicas.get(replica) or _Replica(now)
        found.running += 1
        found.wait(now)
        return RequestHealth(self, found, now, prefill_tokens)

    def probe_sent(self, replica: str, now: float) -> None:
        """Report that a probe is sent. It is answered, times out, or its connection fails."""
        self._observe(now)
        if found := self._replicas.get(replica):
            found.probing = True
            found.wait(now)
            found.next_probe = now + self._settings.probe_seconds

    def probe_answered(self, replica: str, now: float, identity: str) -> None:
        """Report that the engine of a replica has answered a probe.

        Args:
            replica: its name.
            now: the time.
            identity: what it serves, see `__init__`.
        """
        self._observe(now)
        found = self._replicas.get(replica)
        if found is None:
            return
        if self.identity is None:
            self.identity = identity
        if identity != self.identity:
            reason = f"it serves {identity}, and the gateway expects {self.identity}"
            self._take_out(found, State.MISMATCHED, reason, now)
            return
        found.probing = False
        found.hear(now)
        if found.state in AWAY:
            self._bring_back(found, now)

    def probe_timed_out(self, replica: str, now: float) -> None:
        """Report that a probe was not answered in time: no failure of a replica that is busy."""
        self._observe(now)
        if found := self._replicas.get(replica):
            # Still waiting: together with the probes that follow, this becomes a hang.
            self._check_time(found, now)
            if found.state in AWAY:
                self._take_out(found, found.state, found.reason, now)

    def connection_failed(self, replica: str, now: float, reason: str) -> None:
        """Report that a connection to a replica was refused or reset."""
        self._observe(now)
        if found := self._replicas.get(replica):
            self._take_out(found, State.OUT, reason, now)

    def _observe(self, now: float) -> None:
        """Extend all waits by a pause of the gateway itself, in which it could not listen."""
        pause = now - self._now
        if self._settings.stall_seconds / 2 < pause < math.inf:
            for each in self._replicas.values():
                if each.waiting_since is not None:
                    each.waiting_since += pause
        self._now = max(now, self._now)

    def _check_time(self, found: _Replica, now: float) -> None:
        """Take a replica out that hangs; bring one back that was slow long ago."""
        since = found.waiting_since
        if since is not None and found.state not in AWAY and (found.running or found.probing):
            silent = now - since
            if silent >= self._settings.stall_seconds:
                reason = f"no token and no answer for {silent:.0f} s"
                self._take_out(found, State.HUNG, reason, now)
        if found.state is State.SLOW and now - found.pace.updated >= self._settings.slow_seconds:
            found.state, found.reason = State.UP, ""
            found.pace = Pace(now)

    def _take_out(self, found: _Replica, state: State, reason: str, now: float) -> None:
        settings = self._settings
        away, probing = found.state in AWAY, found.probing
        if found.state in PRESENT and now - found.up_since >= settings.max_backoff_seconds:
            found.attempts = 0
        found.state, found.reason = state, reason
        found.ejected = found.probing = False
        found.waiting_since = None
        if away and not probing and now < found.next_probe:
            return  # One failure may end many requests; away, only probes count.
        backoff = settings.first_backoff_seconds * 2.0 ** min(found.attempts, 30)
        found.attempts += 1
        # With jitter, so that gateways do not all probe at once a replica that comes back.
        jitter = 0.5 + 0.5 * self._random()
        found.next_probe = now + jitter * min(backoff, settings.max_backoff_seconds)

    def _bring_back(self, found: _Replica, now: float) -> None:
        found.next_probe = now + self._settings.probe_seconds
        found.failures = 0
        found.pace = Pace(now)
        if found.attempts:
            found.state, found.reason = State.TRIAL, f"on trial; before: {found.reason}"
        else:
            found.come_up(now)

    def _progressed(self, found: _Replica, now: float) -> None:
        found.hear(now)
        found.failures = 0
        if found.state is State.TRIAL:
            found.come_up(now)
        if now - found.compared >= COMPARE_SECONDS:
            found.compared = now
            self._compare(found, now)

    def _failed(self, found: _Replica, now: float, status: int) -> None:
        found.hear(now)
        found.failures += 1
        if found.state in AWAY:
            return
        reason = f"{found.failures} responses of status {status} in a row"
        failed_often = found.failures >= self._settings.max_failures
        if found.state is State.TRIAL or (failed_often and self._may_eject(found)):
            self._take_out(found, State.OUT, reason, now)
            found.ejected = True

    def _compare(self, found: _Replica, now: float) -> None:
        if found.state not in PRESENT:
            return
        others = (each for each in self._replicas.values() if each is not found)
        excess = found.pace.excess([each.pace for each in others if each.state in PRESENT])
        factor = self._settings.slow_factor
        if found.state is State.SLOW and excess < math.sqrt(factor):
            found.state, found.reason = State.UP, ""
        elif found.state is State.UP and excess >= factor and self._may_eject(found):
            found.state, found.reason = State.SLOW, f"{excess:.1f} times slower than its peers"

    def _may_eject(self, found: _Replica) -> bool:
        """Return whether another replica may be out or slow that is not dead."""
        count = len(self._replicas)
        allowed = max(1, int(self._settings.max_ejected * count)) if count > 1 else 0
        ejected = sum(
            each is not found and (each.ejected or each.state is State.SLOW)
            for each in self._replicas.values()
        )
        return ejected < allowed

    def _none_is_up(self) -> bool:
        return all(each.state not in PRESENT for each in self._replicas.values())


class RequestHealth:
    """A request on a replica, which tells of the replica's health.

    What is reported after `ended` is ignored, and `ended` may be repeated.
    """

    __slots__ = ("_ended", "_health", "_last", "_prefill_tokens", "_replica", "_started")

    def __init__(self, health: Health, replica: _Replica, now: float, prefill_tokens: int) -> None:
        self._health = health
        self._replica = replica
        self._prefill_tokens = prefill_tokens
        self._last = now
        self._started = False
        self._ended = False

    def tokens(self, count: int, now: float) -> None:
        """Report tokens that arrived together."""
        if self._ended or count <= 0:
            return
        self._health._observe(now)
        seconds = max(0.0, now - self._last)
        self._last = now
        if self._started:
            self._replica.pace.add_tokens(seconds, count, now)
        else:
            self._started = True
            self._replica.pace.add_first_token(seconds, self._prefill_tokens, now)
        self._health._progressed(self._replica, now)

    def failed(self, status: int, now: float) -> None:
        """Report a response of status 5xx."""
        if not self._ended:
            self._health._observe(now)
            self.ended()
            self._health._failed(self._replica, now, status)

    def ended(self) -> None:
        """Report that the request has ended, or was given up."""
        if not self._ended:
            self._ended = True
            self._replica.running -= 1
