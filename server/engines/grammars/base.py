"""The interface of the grammar check that precedes compilation in the engine."""

from dataclasses import dataclass
from typing import Any, Protocol

from proctor.server.engines.tool_calls import Constraint


@dataclass(frozen=True, slots=True)
class CheckedGrammar:
    """A grammar that the engine may compile.

    Attributes:
        params: vLLM's `StructuredOutputsParams` for it, with the backend set.
        slow: whether it takes long to compile.
    """

    params: Any
    slow: bool


class GrammarChecker(Protocol):
    """Decides which grammars the engine may compile."""

    async def check(self, constraint: Constraint, owner: str) -> CheckedGrammar:
        """Return the checked grammar of a constraint. Cancelling the call stops the check.

        Args:
            constraint: the structured output.
            owner: the name of the request's API key; checks that wait are scheduled round-robin
                among owners.

        Raises:
            UnsupportedRequest: if the grammar is invalid or exceeds the limits.
            EngineUnavailable: if the check cannot run now.
        """

    def wait(self) -> None:
        """Block until checks can run.

        Raises:
            RuntimeError: if the processes failed to start.
        """

    def close(self) -> None:
        """End the processes."""
