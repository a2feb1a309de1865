"""What Prometheus is told; every label comes from a closed set."""

import logging
from collections.abc import Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from proctor.budget import Forced, OnLoop
from proctor.server.accounting.ledger.writer import WriteOutcome
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.supervisor import EngineFactory
from proctor.server.generation.base import Channel, ChoiceResult
from proctor.server.generation.context import ANONYMOUS
from proctor.server.pricing import Cost
from proctor.server.telemetry.tracing import Exemplar

logger = logging.getLogger(__name__)


TOKENS = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
MONEY = tuple(digit * 10**exponent for exponent in range(-6, 2) for digit in (1, 2, 5))


class Part(StrEnum):
    """What a cost is for; see `Cost`."""

    PROMPT = "prompt"
    THINKING = "thinking"
    ANSWER = "answer"


class Metrics:
    """One gateway's metrics.

    Attributes:
        registry: holds them, apart from those of the process.
    """

    def __init__(self, settings: Settings) -> None:
        """Make them; whatever can be counted from the start stands at 0.

        Args:
            settings: those with the tiers and the prices.
        """
        self.registry = registry = CollectorRegistry()
        self.in_flight = Gauge("proctor_in_flight", "Requests being answered.", registry=registry)
        self.waiting = Gauge("proctor_waiting", "Requests in line.", registry=registry)
        self.running = Gauge("proctor_running", "Choices in the engine.", registry=registry)
        self.engine_up = Gauge(
            "proctor_engine_up", "Whether the engine can answer.", registry=registry
        )
        self.engine_starts = Counter(
            "proctor_engine_starts", "Times that the engine was loaded.", registry=registry
        )
        self.rejected = Counter(
            "proctor_rejected", "Requests refused.", ["reason"], registry=registry
        )
        self.clamped = Counter(
            "proctor_budget_clamped", "Requests whose budget was cut.", registry=registry
        )
        self.routed = Counter(
            "proctor_routed",
            "Requests by the tier that they were given, and by what decided.",
            ["tier", "source"],
            registry=registry,
        )
        self.requests = Counter(
            "proctor_requests",
            "Requests answered or refused.",
            ["tier", "end_reason", "status"],
            registry=registry,
        )
        self.queue_seconds = self._seconds("queue_seconds", "From being let in to the engine.")
        self.request_seconds = self._seconds("request_seconds", "Of a whole request.", ["tier"])
        self.first = {
            Channel.REASONING: self._seconds(
                "time_to_first_reasoning_seconds", "From request to first thinking."
            ),
            Channel.ANSWER: self._seconds(
                "time_to_first_answer_seconds", "From request to first text of the answer."
            ),
        }
        self.thinking_tokens = self._tokens(
            "thinking_tokens", "Thinking tokens of a choice.", ["tier", "end_reason"]
        )
        self.answer_tokens = self._tokens("answer_tokens", "Answer tokens of a choice.", ["tier"])
        self.forced_tokens = Counter(
            "proctor_forced_tokens", "Tokens that the server chose.", ["kind"], registry=registry
        )
        self.loops = Counter(
            "proctor_loops",
            "Thinking that was found to repeat itself.",
            ["action"],
            registry=registry,
        )
        self.continuations = Counter(
            "proctor_continuations",
            "Attempts to close the thinking that were turned down.",
            ["tier"],
            registry=registry,
        )
        self.ledger_rows = Counter(
            "proctor_ledger_rows",
            "Rows of the ledger, by what became of them.",
            ["fate"],
            registry=registry,
        )
        self.ledger_waiting = Gauge(
            "proctor_ledger_waiting", "Rows that are not written yet.", registry=registry
        )
        self._caps(settings)
        self._costs(settings)
        self._begin(settings)

    @property
    def load(self) -> int:
        """Requests being answered."""
        (gauge,) = self.in_flight.collect()
        return int(gauge.samples[0].value)

    def paid(self, tier: str, key: str, cost: Cost, answered: bool, exemplar: Exemplar) -> None:
        """Count what a request has cost.

        Args:
            tier: the one that it was of.
            key: the name of whose it is; operators make keys, clients do not.
            cost: what it has cost.
            answered: whether it came to its end.
            exemplar: what names its trace.
        """
        for part in Part:
            self.cost.labels(tier, part.value, key).inc(float(getattr(cost, part.value)))
        if answered:
            self.cost_per_answer.labels(tier).observe(float(cost.total), exemplar)

    def record(self, tier: str, end: ChoiceResult, exemplar: Exemplar) -> None:
        """Count one choice of a tier that has ended, however it did."""
        outcome = end.outcome
        thought = self.thinking_tokens.labels(tier, outcome.end_reason.value)
        thought.observe(outcome.tokens, exemplar)
        self.answer_tokens.labels(tier).observe(end.answer_tokens, exemplar)
        self.continuations.labels(tier).inc(outcome.continuations)
        for kind, count in outcome.forced.items():
            self.forced_tokens.labels(kind.value).inc(count)
        for action, count in outcome.loops.items():
            self.loops.labels(action.value).inc(count)

    def counting(self, load: EngineFactory) -> EngineFactory:
        """The same, and each time is counted."""

        def counted() -> Engine:
            self.engine_starts.inc()
            return load()

        return counted

    def settled(self, fate: WriteOutcome) -> None:
        """Count a row of the ledger."""
        self.ledger_rows.labels(fate.value).inc()

    def _caps(self, settings: Settings) -> None:
        caps = Gauge(
            "proctor_tier_max_thinking_tokens",
            "Most thinking tokens of a tier; infinite without a cap.",
            ["tier"],
            registry=self.registry,
        )
        for tier in settings.tiers:
            caps.labels(tier.name).set(tier.cap)

    def _costs(self, settings: Settings) -> None:
        unit = settings.currency.lower()
        self.cost = Counter(
            f"proctor_cost_{unit}",
            "What requests have cost; a request without a key has an empty one.",
            ["tier", "part", "key"],
            registry=self.registry,
        )
        self.cost_per_answer = Histogram(
            f"proctor_cost_per_answer_{unit}",
            "What a request cost that was answered in full.",
            ["tier"],
            buckets=MONEY,
            registry=self.registry,
        )

    def _begin(self, settings: Settings) -> None:
        """Make the series that are there before anything happens.

        A rate is not to miss the first time that something does.
        """
        for tier in (CUSTOM, *(tier.name for tier in settings.tiers)):
            self.continuations.labels(tier)
            if settings.priced:
                for part in Part:
                    self.cost.labels(tier, part.value, ANONYMOUS)
        for kind in Forced:
            self.forced_tokens.labels(kind.value)
        for action in (OnLoop.CLOSE, OnLoop.NUDGE):
            self.loops.labels(action.value)
        for fate in WriteOutcome:
            self.ledger_rows.labels(fate.value)

    def _seconds(self, name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(f"proctor_{name}", text, labels, buckets=SECONDS, registry=self.registry)

    def _tokens(self, name: str, text: str, labels: Sequence[str]) -> Histogram:
        return Histogram(f"proctor_{name}", text, labels, buckets=TOKENS, registry=self.registry)
