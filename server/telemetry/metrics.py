"""The metrics for Prometheus. The values of every label are from a closed set."""

import asyncio
import collections
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Literal

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
)
from prometheus_client.registry import Collector

from proctor.budget import Forced, OnLoop
from proctor.server.accounting.ledger.writer import WriteOutcome
from proctor.server.channels.deltas import Channel
from proctor.server.config.budgets import CUSTOM, VoteMethod
from proctor.server.config.sessions import Limit
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.supervisor import EngineFactory
from proctor.server.generation.base import ChoiceResult
from proctor.server.generation.context import ANONYMOUS
from proctor.server.pricing import Cost
from proctor.server.telemetry.shared_metrics import (
    ProcessMetrics,
    are_shared,
    shared_collector,
    sum_of_live,
)
from proctor.server.telemetry.tracing import Exemplar

TOKEN_BUCKETS = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
COST_BUCKETS = tuple(digit * 10**exponent for exponent in range(-6, 2) for digit in (1, 2, 5))

REFRESH_SECONDS = 1.0
"""The interval at which a worker writes the gauges that others show."""


class CostPart(StrEnum):
    """The parts of a cost; see `Cost`."""

    PROMPT = "prompt"
    THINKING = "thinking"
    ANSWER = "answer"


class CombinedCollector(Collector):
    """Combines several registries into one."""

    def __init__(self, *registries: CollectorRegistry) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        for registry in self._registries:
            yield from registry.collect()


class Metrics:
    """The metrics of one gateway.

    Attributes:
        registry: the registry of these metrics; those of the process are in another one.
    """

    def __init__(self, settings: Settings) -> None:
        """Register the metrics, with all series that are known in advance at 0.

        Args:
            settings: the settings with the tiers and the prices.
        """
        self.registry = registry = CollectorRegistry()
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        self._process = ProcessMetrics(registry) if are_shared() else None
        self.in_flight = self._gauge("in_flight", "Requests being processed.")
        self.waiting = self._gauge("waiting", "Requests in the queue.")
        self.running = self._gauge("running", "Choices in the engine.")
        self.engine_up = self._gauge("engine_up", "Whether the engine is ready.", "livemin")
        self.model_up = Gauge(
            "proctor_model_up",
            "Whether the engine of a further model is ready.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.model_requests = Counter(
            "proctor_model_requests",
            "Admitted requests by the model that serves them, on servers with several models.",
            ["model"],
            registry=registry,
        )
        self._counts_models = bool(settings.models)
        self.engine_starts = Counter(
            "proctor_engine_starts", "Attempts to load the engine.", registry=registry
        )
        self.rejected = Counter(
            "proctor_rejected",
            "Rejected requests; probes of /health and /ready are none.",
            ["reason"],
            registry=registry,
        )
        self.clamped = Counter(
            "proctor_budget_clamped", "Requests whose budget was clamped.", registry=registry
        )
        self.routed = Counter(
            "proctor_routed",
            "Admitted requests by tier, and by what selected it.",
            ["tier", "source"],
            registry=registry,
        )
        self.requests = Counter(
            "proctor_requests",
            "Completed and rejected requests.",
            ["tier", "end_reason", "status"],
            registry=registry,
        )
        self.queue_seconds = self._seconds("queue_seconds", "Time in the queue.")
        self.request_seconds = self._seconds("request_seconds", "Duration of a request.", ["tier"])
        self.time_to_first = {
            Channel.REASONING: self._seconds(
                "time_to_first_reasoning_seconds", "Time from the request to the first thinking."
            ),
            Channel.ANSWER: self._seconds(
                "time_to_first_answer_seconds",
                "Time from the request to the first text of the answer.",
            ),
        }
        self.prompt_tokens = Counter(
            "proctor_prompt_tokens",
            "Prompt tokens, each prompt counted once for all its choices.",
            ["tier"],
            registry=registry,
        )
        self.cached_prompt_tokens = Counter(
            "proctor_cached_prompt_tokens",
            "Prompt tokens that the engine read from its prefix cache.",
            ["tier"],
            registry=registry,
        )
        self.thinking_tokens = self._tokens(
            "thinking_tokens", "Thinking tokens of a choice.", ["tier", "end_reason"]
        )
        self.answer_tokens = self._tokens("answer_tokens", "Answer tokens of a choice.", ["tier"])
        self.forced_tokens = Counter(
            "proctor_forced_tokens", "Forced tokens.", ["kind"], registry=registry
        )
        self.spilled_tokens = Counter(
            "proctor_spilled_tokens",
            "Answer tokens in which thinking went on after it had been closed.",
            ["tier"],
            registry=registry,
        )
        self.probe_tokens = Counter(
            "proctor_probe_tokens",
            "Tokens of the probes for early exits.",
            ["tier"],
            registry=registry,
        )
        self.votes = Counter(
            "proctor_votes",
            "Answers that several chains of thought have voted on.",
            ["method"],
            registry=registry,
        )
        self.stopped_chains = Counter(
            "proctor_stopped_chains",
            "Chains of thought that were stopped, as the vote was decided.",
            ["method"],
            registry=registry,
        )
        self.loops = Counter(
            "proctor_loops",
            "Detected loops in the thinking.",
            ["action"],
            registry=registry,
        )
        self.continuations = Counter(
            "proctor_continuations",
            "Rejected attempts to close the thinking.",
            ["tier"],
            registry=registry,
        )
        self.ledger_rows = Counter(
            "proctor_ledger_rows",
            "Rows of the ledger, by the outcome of writing them.",
            ["fate"],
            registry=registry,
        )
        self.ledger_waiting = self._gauge("ledger_waiting", "Queued rows of the ledger.")
        self._add_sessions()
        self._add_tier_caps(settings)
        self._add_costs(settings)
        self._initialize_series(settings)

    @property
    def load(self) -> int:
        """The number of requests being processed, by all workers together."""
        (gauge,) = self.in_flight.collect()
        if are_shared():
            return int(sum_of_live(gauge.name))
        return int(gauge.samples[0].value)

    @property
    def collector(self) -> Collector:
        """All metrics: of the gateway, and of the engine and the process if there is one only.

        vLLM's and the process's are in the default registry.
        """
        return shared_collector() if are_shared() else CombinedCollector(self.registry, REGISTRY)

    def watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Let `refresh` set a gauge to the value that a function returns."""
        self._watched.append((gauge, read))

    def refresh(self) -> None:
        """Set the gauges that are watched to their current values."""
        for gauge, read in self._watched:
            gauge.set(read())
        if self._process is not None:
            self._process.refresh()

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Refresh the gauges regularly while the body runs, if other workers show them as well."""
        if not are_shared():
            yield
            return
        task = asyncio.create_task(self._publish())
        try:
            yield
        finally:
            task.cancel()

    async def _publish(self) -> None:
        while True:
            self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    def record_cost(
        self, tier: str, key: str, cost: Cost, answered: bool, exemplar: Exemplar
    ) -> None:
        """Record the cost of a request.

        Args:
            tier: the tier of the request.
            key: the name of its key. Only operators create keys, so the set of names is closed.
            cost: the cost of the request.
            answered: whether the request was answered in full.
            exemplar: the labels of its trace.
        """
        for part in CostPart:
            self.cost.labels(tier, part.value, key).inc(float(getattr(cost, part.value)))
        if answered:
            self.cost_per_answer.labels(tier).observe(float(cost.total), exemplar)

    def record_choice(self, tier: str, result: ChoiceResult, exemplar: Exemplar) -> None:
        """Record a choice of a tier that has finished, also if it failed or was cancelled."""
        outcome = result.outcome
        thinking_tokens = self.thinking_tokens.labels(tier, outcome.end_reason.value)
        thinking_tokens.observe(outcome.tokens, exemplar)
        self.answer_tokens.labels(tier).observe(result.answer_tokens, exemplar)
        self.continuations.labels(tier).inc(outcome.continuations)
        self.spilled_tokens.labels(tier).inc(outcome.spilled)
        self.probe_tokens.labels(tier).inc(result.probe_tokens)
        for kind, count in outcome.forced.items():
            self.forced_tokens.labels(kind.value).inc(count)
        for action, count in outcome.loops.items():
            self.loops.labels(action.value).inc(count)

    def count_starts(self, engine_factory: EngineFactory) -> EngineFactory:
        """Return an engine factory that also counts its calls."""

        def counted() -> Engine:
            self.engine_starts.inc()
            return engine_factory()

        return counted

    def count_model(self, model: str) -> None:
        """Count a request that a model serves, if the server has several models."""
        if self._counts_models:
            self.model_requests.labels(model).inc()

    def count_row(self, outcome: WriteOutcome) -> None:
        """Count a row of the ledger."""
        self.ledger_rows.labels(outcome.value).inc()

    def count_session(self, session: tuple[str, str], change: int) -> None:
        """Count the running requests of a session.

        Args:
            session: the key and the ID of the session.
            change: 1 when a request begins, and -1 when it ends.
        """
        self._sessions[session] += change
        if not self._sessions[session]:
            del self._sessions[session]

    def _add_sessions(self) -> None:
        self._sessions: collections.Counter[tuple[str, str]] = collections.Counter()
        self.session_reduced = Counter(
            "proctor_session_reduced",
            "Requests whose thinking or length a limit of their session reduced.",
            ["limit"],
            registry=self.registry,
        )
        self.session_refused = Counter(
            "proctor_session_refused",
            "Requests that were rejected, since a limit of their session was exceeded.",
            ["limit"],
            registry=self.registry,
        )
        active = self._gauge("active_sessions", "Sessions with running requests.")
        self.watch(active, lambda: len(self._sessions))
        for limit in Limit:
            self.session_refused.labels(limit.value)
        for limit in (Limit.THINKING, Limit.TOKENS, Limit.COST):
            self.session_reduced.labels(limit.value)

    def _add_tier_caps(self, settings: Settings) -> None:
        caps = Gauge(
            "proctor_tier_max_thinking_tokens",
            "Maximum thinking tokens of a tier; infinite without a cap.",
            ["tier"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        for tier in settings.tiers:
            caps.labels(tier.name).set(tier.cap)

    def _add_costs(self, settings: Settings) -> None:
        unit = settings.currency.lower()
        self.cost = Counter(
            f"proctor_cost_{unit}",
            "Cost of requests; the key of requests without one is empty.",
            ["tier", "part", "key"],
            registry=self.registry,
        )
        self.cost_per_answer = Histogram(
            f"proctor_cost_per_answer_{unit}",
            "Cost of a request that was answered in full.",
            ["tier"],
            buckets=COST_BUCKETS,
            registry=self.registry,
        )

    def _initialize_series(self, settings: Settings) -> None:
        """Create series at 0, since a rate misses the event that creates its series."""
        for tier in (CUSTOM, *(tier.name for tier in settings.tiers)):
            self.prompt_tokens.labels(tier)
            self.cached_prompt_tokens.labels(tier)
            self.continuations.labels(tier)
            self.spilled_tokens.labels(tier)
            self.probe_tokens.labels(tier)
            if settings.priced:
                for part in CostPart:
                    self.cost.labels(tier, part.value, ANONYMOUS)
        for kind in Forced:
            self.forced_tokens.labels(kind.value)
        for action in (OnLoop.CLOSE, OnLoop.NUDGE):
            self.loops.labels(action.value)
        for method in VoteMethod:
            self.votes.labels(method.value)
            self.stopped_chains.labels(method.value)
        for outcome in WriteOutcome:
            self.ledger_rows.labels(outcome.value)

    def _gauge(
        self, name: str, description: str, of_workers: Literal["livesum", "livemin"] = "livesum"
    ) -> Gauge:
        """Create a gauge: the sum or the minimum of all workers."""
        return Gauge(
            f"proctor_{name}", description, registry=self.registry, multiprocess_mode=of_workers
        )

    def _seconds(self, name: str, description: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(
            f"proctor_{name}", description, labels, buckets=SECONDS_BUCKETS, registry=self.registry
        )

    def _tokens(self, name: str, description: str, labels: Sequence[str]) -> Histogram:
        return Histogram(
            f"proctor_{name}", description, labels, buckets=TOKEN_BUCKETS, registry=self.registry
        )
