"""An answer's text on its way out: where it begins and stops, and the tool calls in it."""

from collections.abc import Sequence

from proctor.server.engines.tool_calls import CallDelta, CallReader
from proctor.server.generation.stop_strings import StopFinder


class AnswerText:
    """Folds the text of one choice's answer into content and tool calls.

    Newlines between the end marker and the answer are no part of it, and
    nothing is after the first stop string, which a tool call may hold.

    Attributes:
        begun: whether any text of it has come.
        calls: how many tool calls have begun.
        unstopped: tokens that are still to come before stop strings are looked for.
    """

    def __init__(
        self, stops: Sequence[str] = (), reader: CallReader | None = None, unstopped: int = 0
    ) -> None:
        self._stops = StopFinder(stops)
        self._reader = reader
        self.unstopped = unstopped
        self._trimming = False
        self.begun = False
        self.calls = 0

    @property
    def stopped(self) -> bool:
        """Whether it has come to a stop string."""
        return self._stops.found

    @property
    def holds_calls(self) -> bool:
        """Whether tool calls are looked for, which special tokens may mark."""
        return self._reader is not None

    def after_marker(self) -> None:
        """An end marker comes before the next text."""
        self._trimming = not self.begun

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        """What is certain after this text, which these tokens are or lead up to.

        They do not reach beyond those before which there is no stop.
        """
        if self._trimming:
            text = text.lstrip("\n")
        heeds = self.unstopped < len(token_ids) or not self.unstopped
        self.unstopped = max(0, self.unstopped - len(token_ids))
        if text:
            self._trimming, self.begun = False, True
        found = [text] if self._reader is None else self._reader.push(text, token_ids)
        return self._told(found, heeds=heeds)

    def close(self, *, cut: bool = False) -> list[str | CallDelta]:
        """What was held back, because no text follows.

        Args:
            cut: whether the answer was cut for want of tokens.
        """
        told = [] if self._reader is None else self._told(self._reader.close(cut=cut))
        held = self._stops.close()
        return [*told, held] if held else told

    def _told(
        self, found: Sequence[str | CallDelta], *, heeds: bool = True
    ) -> list[str | CallDelta]:
        """What comes before a stop string; those are looked for in the text around calls."""
        told: list[str | CallDelta] = []
        for item in found:
            if self.stopped:
                break
            if isinstance(item, str):
                text = self._stops.push(item) if heeds else item
            else:
                self.calls += item.id is not None
                text = self._stops.close()
            told += [text] if text else []
            told += [item] if isinstance(item, CallDelta) else []
        return told
