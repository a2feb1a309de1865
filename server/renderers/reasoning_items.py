"""Builds the items of thinking."""

from collections.abc import Iterator, Sequence

from proctor.server.renderers.item_builder import ItemBuilder, Place
from proctor.server.schemas.openai_responses.events import ResponseEvent
from proctor.server.schemas.openai_responses.progress import progress_line
from proctor.server.schemas.openai_responses.response import (
    ItemStatus,
    OutputReasoning,
    ReasoningText,
    SummaryText,
)
from proctor.server.schemas.responses import TokenScore


class ReasoningItemBuilder(ItemBuilder):
    """Builds the thinking.

    Attributes:
        record: the record of the thinking, which it has at its end.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.record: str | None = None
        self._has_begun = False

    def item(self, status: ItemStatus) -> OutputReasoning:
        return {
            "type": "reasoning",
            "id": self._place.id,
            "status": status,
            "summary": [],
            "content": [self._part] if self._has_begun else [],
            "encrypted_content": self.record,
        }

    @property
    def _part(self) -> ReasoningText:
        return {"type": "reasoning_text", "text": self.text}

    def start(self) -> Iterator[ResponseEvent]:
        yield self._place.added(self.item("in_progress"))
        self._has_begun = True
        yield {
            "type": "response.content_part.added",
            **self._place.head(),
            "content_index": 0,
            "part": self._part,
        }

    def add(self, text: str, scores: Sequence[TokenScore] = ()) -> Iterator[ResponseEvent]:
        self._texts.append(text)
        yield {
            "type": "response.reasoning_text.delta",
            **self._place.head(),
            "content_index": 0,
            "delta": text,
        }

    def end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        part = self._part
        yield {
            "type": "response.reasoning_text.done",
            **self._place.head(),
            "content_index": 0,
            "text": part["text"],
        }
        yield {
            "type": "response.content_part.done",
            **self._place.head(),
            "content_index": 0,
            "part": part,
        }
        yield self._place.done(self.item(status))


class SummaryItemBuilder(ReasoningItemBuilder):
    """Builds the thinking, with its text in the summary."""

    def item(self, status: ItemStatus) -> OutputReasoning:
        return {
            "type": "reasoning",
            "id": self._place.id,
            "status": status,
            "summary": [self._summary] if self._has_begun else [],
            "content": [],
            "encrypted_content": self.record,
        }

    @property
    def _summary(self) -> SummaryText:
        return {"type": "summary_text", "text": self.text}

    def start(self) -> Iterator[ResponseEvent]:
        yield self._place.added(self.item("in_progress"))
        self._has_begun = True
        yield {
            "type": "response.reasoning_summary_part.added",
            **self._place.head(),
            "summary_index": 0,
            "part": self._summary,
        }

    def add(self, text: str, scores: Sequence[TokenScore] = ()) -> Iterator[ResponseEvent]:
        self._texts.append(text)
        yield {
            "type": "response.reasoning_summary_text.delta",
            **self._place.head(),
            "summary_index": 0,
            "delta": text,
        }

    def end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        part = self._summary
        yield {
            "type": "response.reasoning_summary_text.done",
            **self._place.head(),
            "summary_index": 0,
            "text": part["text"],
        }
        yield {
            "type": "response.reasoning_summary_part.done",
            **self._place.head(),
            "summary_index": 0,
            "part": part,
        }
        yield self._place.done(self.item(status))


class HiddenItemBuilder(SummaryItemBuilder):
    """Builds thinking that is hidden, with a summary of its progress."""

    def __init__(self, place: Place, maximum: int | None) -> None:
        """Begin the item.

        Args:
            place: the place of the item.
            maximum: the maximum number of thinking tokens.
        """
        super().__init__(place)
        self._maximum = maximum
        self._shown = 0

    def add(self, text: str, scores: Sequence[TokenScore] = ()) -> Iterator[ResponseEvent]:
        yield from ()

    def progress(self, tokens: int, *, last: bool = False) -> Iterator[ResponseEvent]:
        """Yield the events of progress, whenever the number of tokens has doubled.

        The summary, which clients send back, therefore has few lines.

        Args:
            tokens: the thinking tokens of the choice so far.
            last: whether no more follow.
        """
        if (tokens == self._shown and self._texts) or (not last and tokens < 2 * self._shown):
            return
        self._shown = tokens
        line = progress_line(tokens, self._maximum)
        yield from super().add(f"\n{line}" if self._texts else line)
