"""What Prometheus is told; every label comes from a closed set."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from proctor.budget import Forced, OnLoop
from proctor.server.accounting.cost import Bill
from proctor.server.accounting.ledger.recorder import Books, Entry, one_of
from proctor.server.accounting.ledger.writer import Fate
from proctor.server.accounting.reservations import Hold
from proctor.server.config.sections import CUSTOM
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.supervisor import Load
from proctor.server.generation.admission import Admission
from proctor.server.generation.channels import Call, Channel, Piece
from proctor.server.generation.context import EVERYBODY
from proctor.server.generation.runner import End
from proctor.server.pricing import Cost
from proctor.server.schemas.generation import Generation
from proctor.server.telemetry.tracing import Exemplar, Trace

UNRESOLVED = "unresolved"
"""The tier of a request that was refused before it had one."""

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""That the last of an answer waits for what it did not take to be given back to its key."""

CLIENT_GONE = 499
"""The status of a request whose client went away, as nginx has it."""

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

    def record(self, tier: str, end: End, exemplar: Exemplar) -> None:
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

    def counting(self, load: Load) -> Load:
        """The same, and each time is counted."""

        def counted() -> Engine:
            self.engine_starts.inc()
            return load()

        return counted

    def settled(self, fate: Fate) -> None:
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
                    self.cost.labels(tier, part.value, EVERYBODY)
        for kind in Forced:
            self.forced_tokens.labels(kind.value)
        for action in (OnLoop.CLOSE, OnLoop.NUDGE):
            self.loops.labels(action.value)
        for fate in Fate:
            self.ledger_rows.labels(fate.value)

    def _seconds(self, name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(f"proctor_{name}", text, labels, buckets=SECONDS, registry=self.registry)

    def _tokens(self, name: str, text: str, labels: Sequence[str]) -> Histogram:
        return Histogram(f"proctor_{name}", text, labels, buckets=TOKENS, registry=self.registry)


class Meter:
    """Follows one request through the gateway.

    Attributes:
        status: the HTTP status that it counts under; an answer that breaks off
            counts under what broke it.
    """

    def __init__(self, metrics: Metrics, books: Books, request_id: str, trace: Trace) -> None:
        self.status = CLIENT_GONE
        self._metrics = metrics
        self._entry = Entry(books, request_id)
        self._trace = trace
        self._tier, self._key = UNRESOLVED, EVERYBODY
        self._began = time.perf_counter()
        self._admitted_at: float | None = None
        self._running = 0
        self._none_runs = asyncio.Event()
        self._none_runs.set()
        self._answered = False
        self._hold = Hold()
        metrics.in_flight.inc()

    @property
    def came(self) -> datetime:
        """When the request came."""
        return self._entry.time

    @property
    def bill(self) -> Bill:
        """What the request costs."""
        return self._entry.bill

    def admitted(
        self,
        name: str,
        model: str,
        asked: Generation,
        admission: Admission,
        key: str,
        hold: Hold,
    ) -> None:
        """Note what was let in.

        Args:
            name: the completion's id.
            model: the model's name.
            asked: what the client sent.
            admission: what it was granted.
            key: whose it is, empty if nobody says.
            hold: what is held back for it.
        """
        self._hold = hold
        self._admitted_at = time.perf_counter()
        self._tier, self._key = admission.resolution.label, key
        self._entry.admitted(name, model, asked, admission, key, lambda: hold.held)
        self._trace.admitted(name, model, asked, admission)
        self._metrics.routed.labels(self._tier, admission.resolution.source.value).inc()
        if admission.clamped_by:
            self._metrics.clamped.inc()

    def begin(self, choice: int, so_far: Callable[[], End]) -> None:
        """See `Account`."""
        self._running += 1
        self._none_runs.clear()
        self.bill.begin(choice, so_far)
        self._trace.began(choice)
        if self._admitted_at is not None:
            self._metrics.queue_seconds.observe(time.perf_counter() - self._admitted_at)
            self._admitted_at = None

    def prefilled(self, choice: int, cached: int | None) -> None:
        """See `Account`."""
        self.bill.prefilled(choice, cached)
        self._trace.prefilled(choice)

    def stop(self, choice: int) -> None:
        """See `Account`."""
        self.bill.stop(choice)

    def saw(self, item: Piece | Call) -> None:
        """Note that there is something to tell."""
        self._entry.saw(item)
        if item.channel is Channel.ANSWER:
            self._trace.answers(item.choice)
        first = self._entry.first
        if item.channel not in first:
            first[item.channel] = time.perf_counter() - self._began
            seconds, seen = first[item.channel], self._metrics.first[item.channel]
            seen.observe(seconds, self._trace.exemplar)

    def record(self, end: End) -> None:
        """See `Account`."""
        self.bill.record(end)
        self._trace.ended(end)
        self._metrics.record(self._tier, end, self._trace.exemplar)
        self._running -= 1
        if not self._running:
            self._none_runs.set()
        self._close_if_over()

    async def settle(self) -> None:
        """Give back what was held for the request and not taken; before its last byte is sent.

        Choices that were cancelled are waited for, and then the database, for as long
        as patience lasts. What is not settled then is when the request's row is written.
        """
        if self._hold.settled.is_set():
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._none_runs.wait()
                self._settle()
                await self._hold.settled.wait()
        except TimeoutError:
            logger.warning("what a request did not take is given back late")

    def close(self) -> None:
        """Note that nothing more is sent; choices that were cancelled may still be ending."""
        self._answered = True
        self._hold.leave()
        self._close_if_over()

    def _settle(self) -> None:
        if not self._hold.settled.is_set() and (draft := self._entry.ended) is not None:
            self._hold.settle(draft)

    def _close_if_over(self) -> None:
        if self._running or not self._answered:
            return
        seconds = time.perf_counter() - self._began
        reason = one_of(end.outcome.end_reason.value for end in self.bill.ends)
        self._metrics.requests.labels(self._tier, reason, str(self.status)).inc()
        self._metrics.request_seconds.labels(self._tier).observe(seconds, self._trace.exemplar)
        self._metrics.in_flight.dec()
        if (cost := self._entry.cost) is not None:
            answered = self.status == HTTPStatus.OK
            self._metrics.paid(self._tier, self._key, cost, answered, self._trace.exemplar)
        self._settle()
        self._entry.close(self.status, seconds)
        self._trace.close(self.status, self.bill)
