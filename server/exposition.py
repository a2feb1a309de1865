"""What `/metrics` says: the gateway's metrics, and those of the engine in this process."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


class Together(Collector):
    """Several registries as one."""

    def __init__(self, *registries: CollectorRegistry) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        for registry in self._registries:
            yield from registry.collect()


def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """All metrics, in the format that was asked for.

    Args:
        registry: the gateway's; vLLM's and the process's are found beside it.
        accept: the request's header. OpenMetrics has exemplars, Prometheus's older text not.

    Returns:
        The body, and its content type.
    """
    encode, content_type = choose_encoder(accept)
    return encode(Together(registry, REGISTRY)), content_type
