"""`GET /health`, `/ready`, `/version` and `/load`."""

from fastapi import Response

from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.schemas.responses import Health, Ready, ServerLoad, Version, as_json
from proctor.server.telemetry.metrics import Metrics


class HealthEndpoints:
    """The endpoints of liveness, readiness, version and load."""

    def __init__(self, supervisor: EngineSupervisor, metrics: Metrics, version: str) -> None:
        self._supervisor = supervisor
        self._metrics = metrics
        self._version = version

    async def health(self) -> Response:
        """Return 200 while the process runs (liveness)."""
        return as_json(Health(status="ok"))

    async def ready(self) -> Response:
        """Return 200 while the engine can generate (readiness).

        Raises:
            Unavailable: while it loads or restarts.
            EngineUnavailable: if it has died.
        """
        await self._supervisor.ready()
        return as_json(Ready(status="ready"))

    async def version(self) -> Response:
        return as_json(Version(version=self._version))

    async def load(self) -> Response:
        """Return the number of requests that are running or waiting."""
        return as_json(ServerLoad(server_load=self._metrics.load))
