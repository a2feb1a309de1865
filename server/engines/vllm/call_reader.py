"""Tool calls, read out of one answer by vLLM's parsers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.abstract_parser import Parser
from vllm.renderers.chat_utils import make_tool_call_id

from proctor.server.engines.tool_calls import CallDelta

logger = logging.getLogger(__name__)

EMPTY_OBJECT = "{}"


@dataclass(frozen=True, slots=True)
class Markup:
    """What a format puts around each call, as far as it is known.

    Attributes:
        begin: comes before a call; None if it is not known.
        end: comes after each, so that the next one can be read afresh; None if
            calls are not apart.
    """

    begin: str | None = None
    end: str | None = None

    def begins(self, text: str, held: str) -> bool:
        """Whether a call begins in a text, or may in what a parser holds back of its end.

        One character of a beginning is more likely to be text.
        """
        begin = self.begin
        return begin is None or begin in text or (len(held) > 1 and begin.startswith(held))


class ParsedCalls:
    """Reads an answer in pieces, each with a parser of its own where calls are apart.

    vLLM's parsers read a stream and a whole answer by different rules. Here both are
    read as a stream, token by token, so that the outcome is a matter of the tokens alone.

    - A call is begun once it has a name and the first brace of its arguments.
    - What was to be a call and was never begun is content, markup and all, unless the
      answer was cut there.
    - Special tokens are shown to the parser, and left out of the content.
    - Whitespace around calls is no content.
    """

    def __init__(
        self,
        make: Callable[[], Parser],
        request: ChatCompletionRequest,
        special: Mapping[int, str],
        markup: Markup,
    ) -> None:
        """Begin before an answer's first token.

        Args:
            make: makes a parser.
            request: as the parser wants it.
            special: the text of each special token.
            markup: around each call.
        """
        self._make = make
        self._request = request
        self._special = special
        self._markup = markup
        self._stretch = Stretch(make, request)
        self._blank = ""
        self._earlier = 0
        self._afresh = True

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        hidden = [self._special[token] for token in token_ids if token in self._special]
        found: list[str | CallDelta] = []
        while (at := self._stretch.end(text, self._markup)) is not None:
            found += self._told(self._stretch.push(text[:at], token_ids, hidden))
            found += self._told(self._stretch.close(self._markup, cut=False))
            self._earlier += self._stretch.told
            self._stretch = Stretch(self._make, self._request)
            text, token_ids, hidden = text[at:], (), []
        if text or token_ids:
            found += self._told(self._stretch.push(text, token_ids, hidden))
        return found

    def close(self, *, cut: bool) -> list[str | CallDelta]:
        found = self._told(self._stretch.close(self._markup, cut=cut))
        if self._blank and not self._earlier + self._stretch.told:
            found.append(self._blank)
        return found

    def _told(self, found: Sequence[str | CallDelta]) -> list[str | CallDelta]:
        """With calls numbered from the answer's beginning, and no whitespace around them."""
        told: list[str | CallDelta] = []
        for item in found:
            if isinstance(item, CallDelta):
                self._afresh, self._blank = True, ""
                told.append(replace(item, index=self._earlier + item.index))
            elif self._afresh and not item.strip():
                self._blank += item
            else:
                told.append(self._blank + item)
                self._afresh, self._blank = False, ""
        return told


class Stretch:
    """Some of an answer, read by one parser.

    Attributes:
        told: how many calls have been passed on.
    """

    def __init__(self, make: Callable[[], Parser], request: ChatCompletionRequest) -> None:
        self._make = make
        self._parser = make()
        self._request = request
        self._raw = ""
        self._plain = ""
        self._content = ""
        self._hidden: list[str] = []
        self._calls: dict[int, Begun] = {}
        self._failed = False
        self.told = 0

    def end(self, text: str, markup: Markup) -> int | None:
        """Where in the text that follows the first call of this stretch is over."""
        if markup.begin is None or markup.end is None:
            return None
        raw = self._raw + text
        begun = raw.find(markup.begin)
        over = raw.find(markup.end, begun + len(markup.begin)) if begun >= 0 else -1
        return None if over < 0 else over + len(markup.end) - len(self._raw)

    def push(
        self, text: str, token_ids: Sequence[int], hidden: Sequence[str]
    ) -> list[str | CallDelta]:
        """What is certain after this text, in which the `hidden` ones are special tokens."""
        self._raw += text
        self._plain += _without(text, [*hidden])
        self._hidden += hidden
        return self._parse(text, token_ids, finished=False)

    def close(self, markup: Markup, *, cut: bool) -> list[str | CallDelta]:
        """What was held back, because no text follows."""
        if not self._raw:
            return []
        found = self._parse("", (), finished=True)
        current = self._calls[max(self._calls)] if self._calls else None
        if current is not None:
            found += self._placed(current, current.close(cut=cut))
        return found if self.told else [*found, *self._unread(markup, cut=cut)]

    def _unread(self, markup: Markup, *, cut: bool) -> Sequence[str | CallDelta]:
        """What the parser held back to the end, and began no call with."""
        rest = self._plain.removeprefix(self._content)
        # Where calls are apart, each has been read from its beginning to its end.
        if rest and markup.end is None and (found := self._read_whole()):
            return found
        if cut and not self._failed and markup.begins(self._raw, rest):
            return []
        return [rest] if rest and self._plain.startswith(self._content) else []

    def _read_whole(self) -> list[str | CallDelta]:
        """Calls that the parser finds in the whole text: some find none in a stream."""
        try:
            _, content, calls = self._make().parse(self._raw, self._request, enable_auto_tools=True)
        except Exception as error:
            _log(error)
            return []
        found: list[str | CallDelta] = []
        for call in calls or []:
            begun = Begun()
            found += self._placed(begun, begun.push(call.id, call.name, call.arguments))
        if found and content and not self._content:
            found.insert(0, self._shown(content))
        return found

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
            # What a model writes is no fault of the request's, whatever a parser makes of it.
            _log(error)
            self._failed = True
            return []
        if delta is None:
            return []
        found: list[str | CallDelta] = []
        if delta.content and (shown := self._shown(delta.content)):
            self._content += shown
            found.append(shown)
        for call in delta.tool_calls or []:
            found += self._call(call)
        return found

    def _shown(self, content: str) -> str:
        """The content without the special tokens in it."""
        return _without(content, self._hidden)

    def _call(self, delta: Any) -> list[CallDelta]:
        self._hidden.clear()
        found: list[CallDelta] = []
        if delta.index not in self._calls:
            if self._calls:
                last = self._calls[max(self._calls)]
                found += self._placed(last, last.close(cut=False))
            self._calls[delta.index] = Begun()
        name = delta.function.name if delta.function else None
        arguments = (delta.function.arguments if delta.function else None) or ""
        call = self._calls[delta.index]
        return found + self._placed(call, call.push(delta.id, name, arguments))

    def _placed(self, call: "Begun", deltas: Sequence[CallDelta]) -> list[CallDelta]:
        """What there is of a call, which has its place among them once it is passed on."""
        if deltas and deltas[0].id is not None:
            call.place = self.told
            self.told += 1
        return [replace(delta, index=call.place) for delta in deltas]


class Begun:
    """One call of a stretch.

    Attributes:
        place: which of the calls that are passed on it is, or -1 while it is not.
    """

    def __init__(self) -> None:
        self._id: str | None = None
        self._name: str | None = None
        self._arguments = ""
        self.place = -1

    def push(self, call_id: str | None, name: str | None, arguments: str) -> list[CallDelta]:
        """What is certain of it: nothing before its name and the first brace."""
        if self.place >= 0:
            return [CallDelta(self.place, None, None, arguments)] if arguments else []
        self._id, self._name = call_id or self._id, name or self._name
        self._arguments += arguments
        return self._begin() if self._arguments.lstrip().startswith("{") else []

    def close(self, *, cut: bool) -> list[CallDelta]:
        """The rest of it: a call without arguments has an empty object of them, if not cut."""
        if self.place >= 0 or self._arguments.strip():
            return []
        self._arguments = "" if cut else EMPTY_OBJECT
        return self._begin()

    def _begin(self) -> list[CallDelta]:
        if not self._name:
            return []
        return [CallDelta(0, self._id or make_tool_call_id(), self._name, self._arguments)]


class FirstCall:
    """Passes on the first call alone, for a request that wants no parallel ones."""

    def __init__(self, reader: ParsedCalls) -> None:
        self._reader = reader

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        return _first(self._reader.push(text, token_ids))

    def close(self, *, cut: bool) -> list[str | CallDelta]:
        return _first(self._reader.close(cut=cut))


def _first(found: Sequence[str | CallDelta]) -> list[str | CallDelta]:
    return [item for item in found if isinstance(item, str) or item.index == 0]


def _log(error: Exception) -> None:
    """Say that a parser failed; its message can hold what the model wrote."""
    logger.warning("a tool parser failed on an answer: %s", type(error).__name__)


def _without(text: str, spelled: list[str]) -> str:
    """The text without what is spelled here, once each; what was found is taken off the list."""
    for each in [*spelled]:
        if each in text:
            text = text.replace(each, "", 1)
            spelled.remove(each)
    return text
