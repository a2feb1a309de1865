"""Processes the text of an answer: leading newlines, stop strings and tool calls."""

from collections.abc import Sequence

from proctor.server.channels.stop_strings import StopFinder
from proctor.server.engines.tool_calls import CallDelta, CallReader


class AnswerText:
    """A filter that separates the text of one choice's answer into content and tool calls.

    Drops newlines between the end marker and the answer, and everything from the first stop
    string on. Stop strings inside tool calls do not count.

    Attributes:
        has_begun: whether the answer has any text so far.
        calls: number of tool calls that have begun.
        tokens_before_stops: number of next tokens in which stop strings are ignored, as vLLM does
            for `min_tokens`.
    """

    def __init__(
        self,
        stops: Sequence[str] = (),
        reader: CallReader | None = None,
        tokens_before_stops: int = 0,
    ) -> None:
        self._stops = StopFinder(stops)
        self._reader = reader
        self.tokens_before_stops = tokens_before_stops
        self._trims_newlines = False
        self.has_begun = False
        self.calls = 0

    @property
    def stop(self) -> str | None:
        """The stop string that was found, or None."""
        return self._stops.found

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stops.found is not None

    @property
    def parses_calls(self) -> bool:
        """Whether the answer may have tool calls; special tokens may delimit them."""
        return self._reader is not None

    def after_marker(self) -> None:
        """Drop leading newlines of the next text: an end marker comes before it."""
        self._trims_newlines = not self.has_begun

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        """Add text and return the content and calls that are certain now.

        Args:
            text: the next text of the answer.
            token_ids: the tokens that it is from; they must not extend beyond
                `tokens_before_stops`, unless that is 0.
        """
        if self._trims_newlines:
            text = text.lstrip("\n")
        finds_stops = self.tokens_before_stops < len(token_ids) or not self.tokens_before_stops
        self.tokens_before_stops = max(0, self.tokens_before_stops - len(token_ids))
        if text:
            self._trims_newlines, self.has_begun = False, True
        items = [text] if self._reader is None else self._reader.push(text, token_ids)
        return self._until_stop(items, finds_stops=finds_stops)

    def close(self, *, cut: bool = False) -> list[str | CallDelta]:
        """Return the content and calls held back so far; no text follows.

        Args:
            cut: whether the answer was truncated at `max_tokens`.
        """
        items = [] if self._reader is None else self._until_stop(self._reader.close(cut=cut))
        rest = self._stops.close()
        return [*items, rest] if rest else items

    def _until_stop(
        self, items: Sequence[str | CallDelta], *, finds_stops: bool = True
    ) -> list[str | CallDelta]:
        """Return the items before the first stop string in the content."""
        passed: list[str | CallDelta] = []
        for item in items:
            if self.stopped:
                break
            if isinstance(item, str):
                text = self._stops.push(item) if finds_stops else item
            else:
                self.calls += item.id is not None
                text = self._stops.close()
            passed += [text] if text else []
            passed += [item] if isinstance(item, CallDelta) else []
        return passed
