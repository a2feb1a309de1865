"""vLLM's metrics of a request that was never scheduled, and those of speculative decoding."""

from typing import Any

import pytest

pytest.importorskip("vllm")

from prometheus_client import REGISTRY
from vllm.v1.engine import FinishReason
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats, RequestStateStats

from proctor.budget.processors.drafts import DraftCounts
from proctor.server.engines.vllm.metrics import DraftMetrics, SanitizedStatLogger


def finish(stats: IterationStats, state: RequestStateStats) -> None:
    stats.update_from_finished_request(FinishReason.ERROR, "request", 5, 10, state)


def test_times_of_a_request_that_was_never_scheduled_are_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded: list[Any] = []
    monkeypatch.setattr(
        PrometheusStatLogger, "record", lambda *arguments: recorded.append(arguments[2])
    )
    stats = IterationStats()
    finish(stats, RequestStateStats(queued_ts=5000.0))
    finish(stats, RequestStateStats(queued_ts=5000.0, scheduled_ts=5001.0))
    ran = RequestStateStats(queued_ts=5000.0, scheduled_ts=5001.0)
    ran.first_token_ts, ran.last_token_ts = 5003.0, 5007.0
    finish(stats, ran)
    assert stats.finished_requests[0].queued_time < 0, "vLLM has mended this"

    logger = object.__new__(SanitizedStatLogger)
    logger.record(None, stats)
    logger.record(None, None)

    assert [
        (each.queued_time, each.prefill_time, each.inference_time, each.decode_time)
        for each in recorded[0].finished_requests
    ] == [(0, 0, 0, 0), (1, 0, 0, 0), (1, 2, 6, 4)]
    assert recorded[1] is None


def drafts(name: str, phase: str) -> float:
    value = REGISTRY.get_sample_value(f"proctor_{name}_total", {"phase": phase})
    assert value is not None
    return value


def test_drafts_of_all_engines_are_added_to_the_counters() -> None:
    """The two workers of an engine sample the same tokens, or one samples none."""
    metrics = DraftMetrics()
    before = drafts("draft_tokens", "thinking"), drafts("accepted_draft_tokens", "answer")
    one, other = DraftCounts(5, 3, 4, 1), DraftCounts(2, 1, 0, 0)
    metrics.update([[one, one], [DraftCounts(), other]])
    metrics.update([[one, one], [DraftCounts(), DraftCounts(3, 1, 2, 2)]])
    assert drafts("draft_tokens", "thinking") - before[0] == 5 + 3
    assert drafts("accepted_draft_tokens", "answer") - before[1] == 1 + 2
