"""What looks grammars through before an engine in this process compiles them."""

from dataclasses import dataclass
from typing import Any, Protocol

from proctor.server.engines.tool_calls import Constraint


@dataclass(frozen=True, slots=True)
class CheckedGrammar:
    """A grammar that the engine may compile.

    Attributes:
        params: vLLM's `StructuredOutputsParams` for it, with the backend that it is for.
        slow: whether it takes long.
    """

    params: Any
    slow: bool


class Grammars(Protocol):
    """Knows which grammars the engine may compile."""

    async def check(self, constraint: Constraint, owner: str) -> CheckedGrammar:
        """The grammar of a constraint, if it can be used. To stop waiting stops the work.

        Args:
            constraint: what an answer is to be bound to.
            owner: whose request it is; those who wait take turns by it.

        Raises:
            UnsupportedRequest: if it cannot be used, or costs more than it may.
            EngineUnavailable: if nobody can say now.
        """

    def wait(self) -> None:
        """Block until it can say.

        Raises:
            RuntimeError: if it never can.
        """

    def close(self) -> None:
        """End the processes."""
