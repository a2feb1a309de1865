"""The grammar of the streams of the Responses API, as a parser.

stream: created, in_progress+, item*, (completed | incomplete | failed)
item: output_item.added, (text | reasoning | summary | call), output_item.done
text: content_part.added, output_text.delta*, output_text.done, content_part.done

The others are like texts; calls have no parts. The last item of a stream that does not complete may
have no end.
"""

from collections.abc import Iterator
from typing import Any

from tests.server.harness import Event, parse_events

LAST = ("response.completed", "response.incomplete", "response.failed")
TEXT = ("content_part", "output_text", "text")
REASONING = ("content_part", "reasoning_text", "text")
SUMMARY = ("reasoning_summary_part", "reasoning_summary_text", "text")
CALLS = {
    "function_call": ("function_call_arguments", "arguments"),
    "custom_tool_call": ("custom_tool_call_input", "input"),
}


class Parser:
    """Parses a stream.

    Attributes:
        items: the items that have an end.
        last: the response of the last event.
    """

    def __init__(self, text: str) -> None:
        self._events: Iterator[Event] = iter(parse_events(text))
        self._number = -1
        self._next = self._read()
        self.items: list[dict[str, Any]] = []
        self.last = self._stream()

    def _read(self) -> Event | None:
        event = next(self._events, None)
        if event is not None:
            assert event.name == event.data["type"]
            assert event.data["sequence_number"] > self._number
            self._number = event.data["sequence_number"]
        return event

    def _peek(self) -> str:
        assert self._next is not None, "the stream has no end"
        return str(self._next.name)

    def _take(self, name: str) -> dict[str, Any]:
        assert self._peek() == f"response.{name}"
        assert self._next is not None
        data: dict[str, Any] = self._next.data
        self._next = self._read()
        return data

    def _stream(self) -> dict[str, Any]:
        identifier = self._take("created")["response"]["id"]
        assert self._take("in_progress")["response"]["status"] == "in_progress"
        while self._peek() not in LAST:
            if self._peek() == "response.in_progress":
                self._take("in_progress")
            else:
                self._item()
        status = self._peek().removeprefix("response.")
        response: dict[str, Any] = self._take(status)["response"]
        assert (response["id"], response["status"]) == (identifier, status)
        assert self._next is None
        assert response["output"][: len(self.items)] == self.items
        unfinished = len(response["output"]) - len(self.items)
        assert unfinished <= (status != "completed")
        return response

    def _item(self) -> None:
        added = self._take("output_item.added")
        assert added["output_index"] == len(self.items)
        item = added["item"]
        kind, place = item["type"], (added["output_index"], item["id"])
        if kind in CALLS:
            ended = self._text(*CALLS[kind], place)
        elif self._peek() not in LAST:
            names = TEXT if kind == "message" else self._reasoning_names()
            ended = self._part(*names, place)
        else:
            ended = False
        if not ended:
            assert self._peek() in LAST
            return
        done = self._take("output_item.done")
        assert done["output_index"] == len(self.items)
        assert (done["item"]["type"], done["item"]["id"]) == (kind, item["id"])
        self.items.append(done["item"])

    def _reasoning_names(self) -> tuple[str, str, str]:
        return REASONING if self._peek() == "response.content_part.added" else SUMMARY

    def _part(self, part: str, text: str, field: str, place: tuple[int, str]) -> bool:
        self._check_place(self._take(f"{part}.added"), place)
        if not self._text(text, field, place):
            return False
        self._check_place(self._take(f"{part}.done"), place)
        return True

    def _text(self, name: str, field: str, place: tuple[int, str]) -> bool:
        """Parse the deltas of a text and its end; return whether it has one."""
        text = ""
        while self._peek() in (f"response.{name}.delta", "response.in_progress"):
            if self._peek() == "response.in_progress":
                self._take("in_progress")
                continue
            delta = self._take(f"{name}.delta")
            self._check_place(delta, place)
            text += delta["delta"]
        if self._peek() in LAST:
            return False
        done = self._take(f"{name}.done")
        self._check_place(done, place)
        assert done[field] == text
        return True

    def _check_place(self, data: dict[str, Any], place: tuple[int, str]) -> None:
        assert (data["output_index"], data["item_id"]) == place
        assert data.get("content_index", 0) == data.get("summary_index", 0) == 0
