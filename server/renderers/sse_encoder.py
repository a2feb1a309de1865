"""The bases of the encoders of streams."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from proctor.server.errors import ApiError
from proctor.server.generation.base import ChoiceResult, StreamItem
from proctor.server.schemas.responses import to_error
from proctor.server.transport.sse import COMMENT, event

DONE = b"data: [DONE]\n\n"


class SseEncoder(ABC):
    """Encodes a stream as server-sent events. Each method returns any number of them."""

    @abstractmethod
    def begin(self, index: int) -> bytes:
        """Return the first events of a choice."""

    @abstractmethod
    def item(self, item: StreamItem) -> bytes:
        """Return the events of an item of a choice; none if the response does not have the item."""

    @abstractmethod
    def finish(self, result: ChoiceResult) -> bytes:
        """Return the last events of a choice."""

    @abstractmethod
    def end(self, results: Sequence[ChoiceResult]) -> bytes:
        """Return the events after all choices, at least one."""

    @abstractmethod
    def error(self, error: ApiError) -> bytes:
        """Return the event that ends the stream after an error."""

    @abstractmethod
    def heartbeat(self) -> bytes:
        """Return the event that keeps an idle connection open."""


class OpenAiSseEncoder(SseEncoder):
    """Encodes a stream in the way of OpenAI's completions APIs, which end with `[DONE]`."""

    def end(self, results: Sequence[ChoiceResult]) -> bytes:
        return self.usage(results) + DONE

    @abstractmethod
    def usage(self, results: Sequence[ChoiceResult]) -> bytes:
        """Return the event with the request's usage, if requested."""

    def error(self, error: ApiError) -> bytes:
        return event(to_error(error), name="error")

    def heartbeat(self) -> bytes:
        """Return a comment, which clients ignore."""
        return COMMENT
