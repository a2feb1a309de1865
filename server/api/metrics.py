"""`GET /metrics`: the metrics of the gateway, and of the engine in this process."""

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
    """Combines several registries into one."""

    def __init__(self, *registries: CollectorRegistry) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        for registry in self._registries:
            yield from registry.collect()


class MetricsEndpoint:
    """The endpoint of `GET /metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Initialize the endpoint.

        Args:
            registry: the gateway's own metrics. Those in the default registry, vLLM's and the
                process's, are added.
        """
        self._all = CombinedCollector(registry, REGISTRY)

    async def __call__(self, request: Request) -> Response:
        """Return the metrics in the format that the `accept` header requests.

        OpenMetrics includes exemplars; the text format does not.
        """
        body, content_type = expose(self._all, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    def standalone_app(self) -> Starlette:
        """Return an application that serves only this endpoint, for a separate port."""
        return Starlette(routes=[Route("/metrics", self.__call__)])


def expose(metrics: Collector, accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that an `accept` header requests, and its content type."""
    encode, content_type = choose_encoder(accept)
    if content_type.startswith(OPENMETRICS):
        # The encoder that choose_encoder returns would escape the colon in names like `vllm:…`.
        return openmetrics(metrics, ALLOWUTF8), content_type  # type: ignore[no-untyped-call]
    return encode(metrics), content_type
