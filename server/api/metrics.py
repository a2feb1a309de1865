"""What `/metrics` says: the gateway's metrics, and those of the engine in this process."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

OPENMETRICS = "application/openmetrics-text"


class CombinedCollector(Collector):
    """Several registries as one."""

    def __init__(self, *registries: CollectorRegistry) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        for registry in self._registries:
            yield from registry.collect()


class MetricsEndpoint:
    """The endpoint."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Tell of the gateway's own metrics, and of vLLM's and the process's beside them."""
        self._all = CombinedCollector(registry, REGISTRY)

    async def __call__(self, request: Request) -> Response:
        """Metrics, for Prometheus, in the format that it asks for: OpenMetrics has exemplars."""
        body, content_type = expose(self._all, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    def standalone_app(self) -> Starlette:
        """An application of nothing else, for a port of its own."""
        return Starlette(routes=[Route("/metrics", self.__call__)])


def expose(metrics: Collector, accept: str) -> tuple[bytes, str]:
    """Metrics in the format that a request's header asks for; the text, and its content type."""
    encode, content_type = choose_encoder(accept)
    if content_type.startswith(OPENMETRICS):
        # The encoder that was chosen writes `vllm_` for `vllm:`, which needs no escape.
        return openmetrics(metrics, ALLOWUTF8), content_type  # type: ignore[no-untyped-call]
    return encode(metrics), content_type
