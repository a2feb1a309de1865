"""vLLM's Prometheus metrics, without invalid negative times."""

from dataclasses import replace
from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import FinishedRequestStats, IterationStats, SchedulerStats

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
