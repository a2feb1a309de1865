"""Streaming extraction of tool calls from an answer, with vLLM's parsers."""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.abstract_parser import Parser

from proctor.server.engines.tool_calls import CallDelta

logger = logging.getLogger(__name__)

EMPTY_OBJECT = "{}"


@dataclass(frozen=True, slots=True)
class Markup:
    """The delimiters of calls in a tool call format, as far as they are known.

    Attributes:
        begin: precedes a call; None if unknown.
        end: follows each call, so that the next one can be parsed independently; None if calls
            have no individual delimiters.
    """

    begin: str | None = None
    end: str | None = None

    def begins(self, text: str, rest: str) -> bool:
        """Return whether a call begins in a text, or possibly in the rest that a parser holds back.

        A single character of the delimiter does not count, as it is more likely to be text.
        """
        begin = self.begin
        return begin is None or begin in text or (len(rest) > 1 and begin.startswith(rest))


class VllmCallReader:
    """A `CallReader` over vLLM's parsers, with one parser per call if calls have end delimiters.

    vLLM's parsers parse a stream and a whole answer by different rules. This reader always parses
    a stream, token by token, so that the result only depends on the tokens.

    - A call begins once it has a name and the first brace of its arguments.
    - Text that looks like a call but never begins one is content, delimiters included, unless the
      answer is truncated in it.
    - Special tokens are passed to the parser and left out of the content.
    - Whitespace around calls is not content.
    """

    def __init__(
        self,
        make: Callable[[], Parser],
        request: ChatCompletionRequest,
        special: Mapping[int, str],
        markup: Markup,
    ) -> None:
        """Create a reader; `push` the text of the answer from its beginning on.

        Args:
            make: returns a new parser.
            request: the request, as the parser needs it.
            special: the text of each special token, by id.
            markup: the delimiters of calls.
        """
        self._make = make
        self._request = request
        self._special = special
        self._markup = markup
        self._segment = CallSegment(make, request)
        self._whitespace = ""
        self._earlier_calls = 0
        self._at_boundary = True

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        special = [self._special[token] for token in token_ids if token in self._special]
        items: list[str | CallDelta] = []
        while (end := self._segment.end(text, self._markup)) is not None:
            items += self._number(self._segment.push(text[:end], token_ids, special))
            items += self._number(self._segment.close(self._markup, cut=False))
            self._earlier_calls += self._segment.call_count
            self._segment = CallSegment(self._make, self._request)
            text, token_ids, special = text[end:], (), []
        if text or token_ids:
            items += self._number(self._segment.push(text, token_ids, special))
        return items

    def close(self, *, cut: bool) -> list[str | CallDelta]:
        items = self._number(self._segment.close(self._markup, cut=cut))
        if self._whitespace and not self._earlier_calls + self._segment.call_count:
            items.append(self._whitespace)
        return items

    def _number(self, items: Sequence[str | CallDelta]) -> list[str | CallDelta]:
        """Number the calls from the beginning of the answer, and drop whitespace around them."""
        numbered: list[str | CallDelta] = []
        for item in items:
            if isinstance(item, CallDelta):
                self._at_boundary, self._whitespace = True, ""
                numbered.append(replace(item, index=self._earlier_calls + item.index))
            elif self._at_boundary and not item.strip():
                self._whitespace += item
            else:
                numbered.append(self._whitespace + item)
                self._at_boundary, self._whitespace = False, ""
        return numbered


class CallSegment:
    """A part of an answer that is parsed by one parser.

    Attributes:
        call_count: number of calls that have begun.
    """

    def __init__(self, make: Callable[[], Parser], request: ChatCompletionRequest) -> None:
        self._make = make
        self._parser = make()
        self._request = request
        self._raw = ""
        self._plain = ""
        self._content = ""
        self._special: list[str] = []
        self._calls: dict[int, OpenCall] = {}
        self._failed = False
        self.call_count = 0

    def end(self, text: str, markup: Markup) -> int | None:
        """Return where in the next text the first call of this segment ends, or None."""
        if markup.begin is None or markup.end is None:
            return None
        raw = self._raw + text
        begin = raw.find(markup.begin)
        end = raw.find(markup.end, begin + len(markup.begin)) if begin >= 0 else -1
        return None if end < 0 else end + len(markup.end) - len(self._raw)

    def push(
        self, text: str, token_ids: Sequence[int], special: Sequence[str]
    ) -> list[str | CallDelta]:
        """Add text, with the special tokens in it, and return what is certain now."""
        self._raw += text
        self._plain += _without(text, [*special])
        self._special += special
        return self._parse(text, token_ids, finished=False)

    def close(self, markup: Markup, *, cut: bool) -> list[str | CallDelta]:
        """Return what was held back; no text follows."""
        if not self._raw:
            return []
        items = self._parse("", (), finished=True)
        current = self._calls[max(self._calls)] if self._calls else None
        if current is not None:
            items += self._index(current, current.close(cut=cut))
        return items if self.call_count else [*items, *self._unparsed(markup, cut=cut)]

    def _unparsed(self, markup: Markup, *, cut: bool) -> Sequence[str | CallDelta]:
        """Return the text that the parser held back without beginning a call."""
        rest = self._plain.removeprefix(self._content)
        # With end delimiters, each call was parsed from its beginning to its end already.
        if rest and markup.end is None and (items := self._parse_whole()):
            return items
        if cut and not self._failed and markup.begins(self._raw, rest):
            return []
        return [rest] if rest and self._plain.startswith(self._content) else []

    def _parse_whole(self) -> list[str | CallDelta]:
        """Parse the whole text at once, as some parsers do not find calls in a stream."""
        try:
            _, content, calls = self._make().parse(self._raw, self._request, enable_auto_tools=True)
        except Exception as error:
            _log(error)
            return []
        items: list[str | CallDelta] = []
        for call in calls or []:
            open_call = OpenCall()
            items += self._index(open_call, open_call.push(call.id, call.name, call.arguments))
        if items and content and not self._content:
            items.insert(0, self._without_special(content))
        return items

    def _parse(
        self, text: str, token_ids: Sequence[int], *, finished: bool
    ) -> list[str | CallDelta]:
        if self._failed:
            return []
        try:
            delta = self._parser.parse_delta(
                text, [*token_ids], self._request, prompt_token_ids=[], finished=finished
            )
        except Exception as error:
            # The request must not fail over what the model generated.
            _log(error)
            self._failed = True
            return []
        if delta is None:
            return []
        items: list[str | CallDelta] = []
        if delta.content and (content := self._without_special(delta.content)):
            self._content += content
            items.append(content)
        for call in delta.tool_calls or []:
            items += self._call(call)
        return items

    def _without_special(self, content: str) -> str:
        return _without(content, self._special)

    def _call(self, delta: Any) -> list[CallDelta]:
        self._special.clear()
        deltas: list[CallDelta] = []
        if delta.index not in self._calls:
            if self._calls:
                last = self._calls[max(self._calls)]
                deltas += self._index(last, last.close(cut=False))
            self._calls[delta.index] = OpenCall()
        name = delta.function.name if delta.function else None
        arguments = (delta.function.arguments if delta.function else None) or ""
        call = self._calls[delta.index]
        return deltas + self._index(call, call.push(delta.id, name, arguments))

    def _index(self, call: "OpenCall", deltas: Sequence[CallDelta]) -> list[CallDelta]:
        """Set the index of a call's deltas; the call gets its index with its first delta."""
        if deltas and deltas[0].id is not None:
            call.index = self.call_count
            self.call_count += 1
        return [replace(delta, index=call.index) for delta in deltas]


class OpenCall:
    """One call of a segment.

    Attributes:
        index: its index among the calls of the segment that have begun, or -1 before it begins.
    """

    def __init__(self) -> None:
        self._id: str | None = None
        self._name: str | None = None
        self._arguments = ""
        self.index = -1

    def push(self, call_id: str | None, name: str | None, arguments: str) -> list[CallDelta]:
        """Return what is certain: nothing before the name and the first brace of the arguments."""
        if self.index >= 0:
            return [CallDelta(self.index, None, None, arguments)] if arguments else []
        self._id, self._name = call_id or self._id, name or self._name
        self._arguments += arguments
        return self._begin() if self._arguments.lstrip().startswith("{") else []

    def close(self, *, cut: bool) -> list[CallDelta]:
        """Return the rest: a call without arguments gets an empty object, unless truncated."""
        if self.index >= 0 or self._arguments.strip():
            return []
        self._arguments = "" if cut else EMPTY_OBJECT
        return self._begin()

    def _begin(self) -> list[CallDelta]:
        if not self._name:
            return []
        call_id = self._id or f"chatcmpl-tool-{uuid.uuid4().hex}"
        return [CallDelta(0, call_id, self._name, self._arguments)]


class FirstCallReader:
    """A `CallReader` that only returns the first call, for requests without parallel calls."""

    def __init__(self, reader: VllmCallReader) -> None:
        self._reader = reader

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        return _first(self._reader.push(text, token_ids))

    def close(self, *, cut: bool) -> list[str | CallDelta]:
        return _first(self._reader.close(cut=cut))


def _first(items: Sequence[str | CallDelta]) -> list[str | CallDelta]:
    return [item for item in items if isinstance(item, str) or item.index == 0]


def _log(error: Exception) -> None:
    """Log that a parser failed, without its message, which may quote the answer."""
    logger.warning("a tool parser failed on an answer: %s", type(error).__name__)


def _without(text: str, special: list[str]) -> str:
    """Remove one occurrence of each special token; removed tokens are removed from the list too."""
    for each in [*special]:
        if each in text:
            text = text.replace(each, "", 1)
            special.remove(each)
    return text
