"""`GET /health`, `/ready`, `/version` and `/load`: what load balancers and benchmarks ask."""

from fastapi import Response

from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.schemas.responses import Health, Ready, ServerLoad, Version, as_json
from proctor.server.telemetry.metrics import Metrics


class HealthEndpoints:
    """The endpoints."""

    def __init__(self, supervisor: EngineSupervisor, metrics: Metrics, version: str) -> None:
        self._supervisor = supervisor
        self._metrics = metrics
        self._version = version

    async def health(self) -> Response:
        """Return 200 while the process runs."""
        return as_json(Health(status="ok"))

    async def ready(self) -> Response:
        """Return 200 while the engine can answer.

        Raises:
            Unavailable: while it loads or restarts.
            EngineUnavailable: if it has died.
        """
        await self._supervisor.ready()
        return as_json(Ready(status="ready"))

    async def version(self) -> Response:
        """Return the server's version."""
        return as_json(Version(version=self._version))

    async def load(self) -> Response:
        """Return how many requests are being answered."""
        return as_json(ServerLoad(server_load=self._metrics.load))
