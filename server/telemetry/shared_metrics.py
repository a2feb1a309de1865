"""Metrics that add up over the workers of a server: prometheus-client's multiprocess mode.

Each worker keeps its values in files of a common folder, and each can sum them up. The files are
named by the number of the worker and not by its process, so that a worker that is started again
goes on counting where it had ended.
"""

import os
import time
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable in which prometheus-client looks for the folder."""


def share_metrics(folder: str, slot: int) -> None:
    """Share the values of all metrics that this process creates from now on.

    Args:
        folder: the folder that all workers use.
        slot: the number of this worker.
    """
    os.environ[FOLDER] = folder
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def are_shared() -> bool:
    """Return whether the values of metrics are shared with other workers."""
    return bool(values.ValueClass._multiprocess)


def shared_collector() -> MultiProcessCollector:
    """Return the metrics of all workers together."""
    return MultiProcessCollector(None)  # type: ignore[no-untyped-call]


def sum_of_live(name: str) -> float:
    """Return the sum of a gauge without labels, whose mode is `livesum`, over all workers."""
    files = Path(os.environ[FOLDER]).glob("gauge_livesum_*.db")
    metrics = MultiProcessCollector.merge(map(str, files))  # type: ignore[no-untyped-call]
    return float(sum(metric.samples[0].value for metric in metrics if metric.name == name))


def forget_worker(folder: str, slot: int) -> None:
    """Remove the gauges of a worker that has ended, and keep what it has counted."""
    mark_process_dead(slot, folder)  # type: ignore[no-untyped-call]


class ProcessMetrics:
    """The resources of all workers together.

    prometheus-client measures them in the default registry, for the process that is asked only.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._process = psutil.Process()
        self._counted_seconds = 0.0
        self._seconds = Counter(
            "process_cpu_seconds", "User and system CPU time of the workers.", registry=registry
        )
        self._memory = Gauge(
            "process_resident_memory_bytes",
            "Resident memory of the workers.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._files = Gauge(
            "process_open_fds",
            "Open file descriptors of the workers.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def refresh(self) -> None:
        """Measure them now."""
        seconds = time.process_time()
        self._seconds.inc(seconds - self._counted_seconds)
        self._counted_seconds = seconds
        self._memory.set(self._process.memory_info().rss)
        self._files.set(self._process.num_fds())
