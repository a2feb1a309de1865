"""Prometheus metrics of vLLM, without invalid negative times, and of speculative decoding."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import Counter
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import FinishedRequestStats, IterationStats, SchedulerStats

from proctor.budget.processors.drafts import DraftCounts

PROPOSED = Counter(
    "proctor_draft_tokens", "Tokens proposed by speculative decoding, by phase.", ["phase"]
)
ACCEPTED = Counter(
    "proctor_accepted_draft_tokens",
    "Tokens of speculative decoding that were accepted, by phase.",
    ["phase"],
)
TIMES = ("queued_time", "prefill_time", "inference_time", "decode_time")


class SanitizedStatLogger(PrometheusStatLogger):
    """vLLM's `PrometheusStatLogger`, with negative times of finished requests set to 0.

    For a request that ends before it was scheduled, for instance due to a bad grammar, vLLM
    computes the queued time from its arrival to the clock's zero. A single negative time can make
    a sum negative, which is invalid for an OpenMetrics counter and looks like a reset to `rate()`.
    """

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        *rest: Any,
        **named: Any,
    ) -> None:
        """Record the statistics of an iteration."""
        if iteration_stats is not None:
            iteration_stats.finished_requests = [
                without_impossible_times(finished) for finished in iteration_stats.finished_requests
            ]
        super().record(scheduler_stats, iteration_stats, *rest, **named)


def without_impossible_times(finished: FinishedRequestStats) -> FinishedRequestStats:
    """Return the statistics with negative times set to 0."""
    negative: dict[str, Any] = {name: 0.0 for name in TIMES if getattr(finished, name) < 0}
    return replace(finished, **negative) if negative else finished


class DraftMetrics:
    """Adds an engine's counts of draft tokens to the process's metrics."""

    def __init__(self) -> None:
        """Create the series at 0."""
        self._last = DraftCounts()
        self._add(DraftCounts())

    def update(self, engines: Sequence[Sequence[Sequence[int]]]) -> None:
        """Record the counts since the start, as reported by the workers of each engine.

        The workers of a data-parallel engine sample the same tokens; some sample none.

        Args:
            engines: for each engine the `DraftCounts` of its workers, as plain sequences.
        """
        of_engines = [map(max, *workers, DraftCounts()) for workers in engines]
        counts = DraftCounts(*map(sum, zip(*of_engines, strict=True)))
        self._add(DraftCounts(*(new - old for new, old in zip(counts, self._last, strict=True))))
        self._last = counts

    def _add(self, increase: DraftCounts) -> None:
        PROPOSED.labels("thinking").inc(increase.thinking)
        ACCEPTED.labels("thinking").inc(increase.accepted_thinking)
        PROPOSED.labels("answer").inc(increase.answer)
        ACCEPTED.labels("answer").inc(increase.accepted_answer)
