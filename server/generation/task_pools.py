"""The tasks that generate choices, for each model of the server."""

import asyncio
import contextlib
from collections.abc import Mapping

from proctor.server.errors import Overloaded
from proctor.server.generation.runner import TaskPool


class TaskPools:
    """One task pool for each model, so that none waits for the engine of another."""

    def __init__(self, default: TaskPool, further: Mapping[str, TaskPool]) -> None:
        """Initialize the pools.

        Args:
            default: the pool of the default model.
            further: those of further models, by their names.
        """
        self._default = default
        self._further = further

    def of(self, model: str) -> TaskPool:
        """Return the pool of a model; any but the further ones is the default model."""
        return self._further.get(model, self._default)

    def check(self) -> None:
        """Return if the queue of any model has room for another request.

        Raises:
            Overloaded: if all are full.
        """
        for pool in self._further.values():
            with contextlib.suppress(Overloaded):
                pool.check()
                return
        self._default.check()

    def end(self) -> None:
        """Fail all requests that have not finished, as the server is shutting down."""
        for pool in (self._default, *self._further.values()):
            pool.end()

    async def aclose(self) -> None:
        """Cancel every task and wait for them to end."""
        pools = (self._default, *self._further.values())
        await asyncio.gather(*(pool.aclose() for pool in pools))
