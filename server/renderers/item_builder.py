"""The base of the builders of a response's items."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proctor.server.schemas.openai_responses.events import (
    ItemAdded,
    ItemDone,
    ItemEventBase,
    ResponseEvent,
)
from proctor.server.schemas.openai_responses.response import ItemStatus, OutputItem
from proctor.server.schemas.responses import TokenScore


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an item in a response.

    Attributes:
        index: its index in the output.
        id: its identifier.
        numbers: the numbers of the stream's events.
    """

    index: int
    id: str
    numbers: Iterator[int]

    def head(self) -> ItemEventBase:
        """Return the fields that all events of the item's parts have in common."""
        return {
            "sequence_number": next(self.numbers),
            "output_index": self.index,
            "item_id": self.id,
        }

    def added(self, item: OutputItem) -> ItemAdded:
        """Return the event of the item's beginning."""
        return {
            "type": "response.output_item.added",
            "sequence_number": next(self.numbers),
            "output_index": self.index,
            "item": item,
        }

    def done(self, item: OutputItem) -> ItemDone:
        """Return the event of the item's end."""
        return {
            "type": "response.output_item.done",
            "sequence_number": next(self.numbers),
            "output_index": self.index,
            "item": item,
        }


class ItemBuilder(ABC):
    """Builds one item. Events are yielded in the order of the stream."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """The text of the item so far."""
        return "".join(self._texts)

    @abstractmethod
    def item(self, status: ItemStatus) -> OutputItem:
        """Return the item as it is now."""

    @abstractmethod
    def start(self) -> Iterator[ResponseEvent]:
        """Yield the first events of the item."""

    @abstractmethod
    def add(self, text: str, scores: Sequence[TokenScore] = ()) -> Iterator[ResponseEvent]:
        """Yield the events of more text."""

    @abstractmethod
    def end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        """Yield the last events of the item."""
