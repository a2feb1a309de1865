"""`GET /health`, `/ready`, `/version` and `/load`."""

from typing import Literal

from fastapi import Request, Response

from proctor.server.engines.served_models import ServedModels
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.errors import EngineUnavailable, Unavailable
from proctor.server.schemas.responses import Health, Ready, ServerLoad, Version, as_json
from proctor.server.telemetry.metrics import Metrics

PROBES = ("/health", "/ready")
"""Paths that orchestrators probe: a response that is not ready is no refusal of a request."""


def is_probe(request: Request) -> bool:
    """Return whether a request is a probe of liveness or readiness."""
    return request.scope["path"] in PROBES and request.method in ("GET", "HEAD")


class HealthEndpoints:
    """The endpoints of liveness, readiness, version and load."""

    def __init__(self, models: ServedModels, metrics: Metrics, version: str) -> None:
        self._models = models
        self._metrics = metrics
        self._version = version

    async def health(self) -> Response:
        """Return 200 while the process runs (liveness)."""
        return as_json(Health(status="ok"))

    async def ready(self) -> Response:
        """Return 200 while the engine of the default model can generate (readiness).

        Raises:
            Unavailable: while it loads or restarts.
            EngineUnavailable: if it has died.
        """
        await self._models.default.ready()
        ready = Ready(status="ready")
        if self._models.further:
            ready["models"] = {
                name: await _state(supervisor) for name, supervisor in self._models.further.items()
            }
        return as_json(ready)

    async def version(self) -> Response:
        return as_json(Version(version=self._version))

    async def load(self) -> Response:
        """Return the number of requests that are running or waiting."""
        return as_json(ServerLoad(server_load=self._metrics.load))


async def _state(supervisor: EngineSupervisor) -> Literal["ready", "unavailable"]:
    try:
        await supervisor.ready()
    except (EngineUnavailable, Unavailable):
        return "unavailable"
    return "ready"
