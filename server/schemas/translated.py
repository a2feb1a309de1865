"""Requests of other protocols, translated to chat requests."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.messages import PriorThinking


class TranslatedRequest(ChatRequest):
    """A chat request that means the same as a request of another protocol.

    It is constructed from validated parts, and therefore not validated itself.

    Attributes:
        clamps_max_tokens: agents always request the maximum of the models that they know.
        supports_parallel: the records of turns count the thinking of one chain only.
    """

    clamps_max_tokens: ClassVar[bool] = True
    supports_parallel: ClassVar[bool] = False

    ignored: tuple[str, ...] = ()
    """The paths of the ignored fields of the client's request."""

    thinking_blocks: Mapping[int, tuple[PriorThinking, ...]] = {}
    """The thinking blocks of earlier responses, by index of their message."""

    names: tuple[str, ...] = ()
    """What names the session in fields that also serve other purposes, by precedence."""

    @property
    def session_names(self) -> Sequence[str]:
        return self.names

    @property
    def prior_thinking(self) -> Mapping[int, Sequence[PriorThinking]]:
        return self.thinking_blocks

    def ignored_fields(self) -> Iterator[str]:
        return iter(self.ignored)
