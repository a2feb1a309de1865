"""The models of a server: which of them a request names, and their engines."""

import asyncio
from collections.abc import Mapping

from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.supervisor import EngineFactory, EngineSupervisor


class ServedModels:
    """The model of the top-level settings, which is the default, and further ones.

    Attributes:
        default: the supervisor of the default model's engine.
        further: those of the further models' engines, by the names of the models.
    """

    def __init__(
        self,
        settings: Settings,
        engine_factory: EngineFactory,
        further: Mapping[str, EngineFactory],
    ) -> None:
        """Create a supervisor for each engine; `start` loads them.

        Args:
            settings: the settings of the server.
            engine_factory: creates the engine of the default model.
            further: create those of `settings.models`, by the names of the models.
        """
        limits = settings.limits
        timeouts = StallTimeouts(limits.stall_seconds, limits.busy_stall_seconds)
        self.default = EngineSupervisor(engine_factory, timeouts)
        self.further: Mapping[str, EngineSupervisor] = {
            name: EngineSupervisor(factory, timeouts, name) for name, factory in further.items()
        }
        self._own_names = {name: model.name for model in settings.models for name in model.names}

    def find(self, name: str | None) -> EngineSupervisor:
        """Return the supervisor of the model that a request names.

        That of the default model also for names that no model has, which its engine's `ModelInfo`
        tells.
        """
        own_name = self._own_names.get(name or "")
        return self.default if own_name is None else self.further[own_name]

    async def ready(self, name: str | None) -> Engine:
        """Return the engine of the model that a request names, if it can serve requests now.

        Raises:
            Unavailable: if it is loading, restarting or failed to load.
            EngineUnavailable: if it has died.
        """
        return await self.find(name).ready()

    def start(self) -> None:
        """Start loading the engines."""
        for supervisor in (self.default, *self.further.values()):
            supervisor.start()

    async def aclose(self) -> None:
        """Shut the engines down, or stop waiting for them to load."""
        supervisors = (self.default, *self.further.values())
        await asyncio.gather(*(supervisor.aclose() for supervisor in supervisors))
