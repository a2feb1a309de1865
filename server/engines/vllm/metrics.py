"""vLLM's own metrics, without times that never passed."""

from dataclasses import replace
from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import FinishedRequestStats, IterationStats, SchedulerStats

TIMES = ("queued_time", "prefill_time", "inference_time", "decode_time")


class SanitizedStatLogger(PrometheusStatLogger):
    """vLLM's logger to Prometheus.

    A request that ends before it was scheduled, as one with a bad grammar does, waited in
    vLLM's books from the moment it came until the clock's zero. One such makes a sum negative,
    which is no counter to OpenMetrics, and looks to `rate()` like a reset.
    """

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        *rest: Any,
        **named: Any,
    ) -> None:
        """Count an iteration."""
        if iteration_stats is not None:
            iteration_stats.finished_requests = [
                without_impossible_times(finished) for finished in iteration_stats.finished_requests
            ]
        super().record(scheduler_stats, iteration_stats, *rest, **named)


def without_impossible_times(finished: FinishedRequestStats) -> FinishedRequestStats:
    """The same, where times below zero are none."""
    impossible: dict[str, Any] = {name: 0.0 for name in TIMES if getattr(finished, name) < 0}
    return replace(finished, **impossible) if impossible else finished
