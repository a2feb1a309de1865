"""Prometheus metrics of replicas, without a label for each: there can be any number of them."""

from collections import Counter as Counts
from collections.abc import Iterable
from enum import StrEnum

from prometheus_client import Counter, Gauge

from proctor.server.engines.replicas.balancing.health import State

REPLICAS = Gauge(
    "proctor_replicas", "Replicas, by their state.", ["model", "state"], multiprocess_mode="livemax"
)
OUTSTANDING = Gauge(
    "proctor_outstanding_tokens",
    "Tokens that the running requests are expected to generate yet, and a tenth of those of "
    "their prompts that replicas have not in their cache.",
    ["model"],
    multiprocess_mode="livesum",
)
LOST = Counter(
    "proctor_replica_failures",
    "Requests whose replica failed, by what became of them.",
    ["model", "outcome"],
)


class Outcome(StrEnum):
    """What becomes of a request whose replica failed.

    Attributes:
        RETRIED: nothing had been generated, and another replica begins anew.
        RESUMED: another replica continues where it was.
        FAILED: it ends with an error.
    """

    RETRIED = "retried"
    RESUMED = "resumed"
    FAILED = "failed"


class ReplicaMetrics:
    """The metrics of the replicas of one model."""

    def __init__(self, model: str) -> None:
        """Create the series of a model at 0."""
        self._model = model
        self.update((), 0)
        for outcome in Outcome:
            LOST.labels(model, outcome)

    def update(self, states: Iterable[State], outstanding: float) -> None:
        """Show how the replicas are.

        Args:
            states: the state of each.
            outstanding: the work that running requests are expected to need yet, in tokens.
        """
        counts = Counts(states)
        for state in State:
            REPLICAS.labels(self._model, state).set(counts[state])
        OUTSTANDING.labels(self._model).set(outstanding)

    def record_loss(self, outcome: Outcome) -> None:
        """Count a request whose replica failed."""
        LOST.labels(self._model, outcome).inc()
