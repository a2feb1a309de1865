"""vLLM's metrics of a request that ended before it was scheduled."""

from typing import Any

import pytest

pytest.importorskip("vllm")

from vllm.v1.engine import FinishReason
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats, RequestStateStats

from proctor.server.engines.vllm.metrics import SanitizedStatLogger


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
    ran = {"scheduled_ts": 5001.0, "first_token_ts": 5003.0, "last_token_ts": 5007.0}
    finish(stats, RequestStateStats(queued_ts=5000.0, **ran))
    assert stats.finished_requests[0].queued_time < 0, "vLLM has mended this"

    logger = object.__new__(SanitizedStatLogger)
    logger.record(None, stats)
    logger.record(None, None)

    assert [
        (each.queued_time, each.prefill_time, each.inference_time, each.decode_time)
        for each in recorded[0].finished_requests
    ] == [(0, 0, 0, 0), (1, 0, 0, 0), (1, 2, 6, 4)]
    assert recorded[1] is None
