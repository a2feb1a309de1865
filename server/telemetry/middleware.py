"""Measures requests, as plain ASGI."""

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proctor.server.accounting.ledger.recorder import LedgerContext
from proctor.server.telemetry.metrics import Metrics
from proctor.server.telemetry.request_observer import RequestObserver
from proctor.server.telemetry.tracing import Tracing


class MetricsMiddleware:
    """Measures every request to some paths, from its first byte to its last."""

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
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        trace = self._tracing.begin(scope)
        observer = RequestObserver(
            self._metrics, self._ledger_context, scope["state"]["request_id"], trace
        )
        scope["state"]["observer"] = observer

        async def send_noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                observer.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            observer.close()
