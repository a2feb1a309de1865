"""`GET /metrics`: the metrics of the gateway, and of the engine in this process."""

from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proctor.server.telemetry.metrics import Metrics

OPENMETRICS = "application/openmetrics-text"


class MetricsEndpoint:
    """The endpoint of `GET /metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, request: Request) -> Response:
        """Return the metrics in the format that the `accept` header requests.

        OpenMetrics includes exemplars; the text format does not.
        """
        self._metrics.refresh()
        body, content_type = expose(self._metrics.collector, request.headers.get("accept", ""))
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
