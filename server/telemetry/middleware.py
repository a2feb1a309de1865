"""ASGI middleware that attaches a monitor to each request."""

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proctor.server.accounting.cost import RequestCost
from proctor.server.accounting.ledger.recorder import LedgerContext, Recorder
from proctor.server.telemetry.metrics import Metrics
from proctor.server.telemetry.request_metrics import RequestMetrics
from proctor.server.telemetry.request_monitor import RequestMonitor
from proctor.server.telemetry.tracing import Tracing


class MetricsMiddleware:
    """Measures requests to the given paths, from their first byte to the last of the response."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        ledger_context: LedgerContext,
        tracing: Tracing,
        paths: Collection[str],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._ledger_context = ledger_context
        self._tracing = tracing
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        request_cost = RequestCost(self._ledger_context.price_model)
        trace = self._tracing.start(scope, request_cost)
        recorder = Recorder(self._ledger_context, scope["state"]["request_id"], request_cost)
        request_metrics = RequestMetrics(self._metrics, request_cost, trace)
        monitor = RequestMonitor(
            request_cost, recorder, [trace, request_metrics], trace.headers(scope)
        )
        scope["state"]["monitor"] = monitor

        async def send_and_note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                monitor.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            monitor.close()
