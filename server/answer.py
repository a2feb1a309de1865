"""An answer's text on its way out: where it begins and stops, and the tool calls in it."""

from collections.abc import Sequence

from server.engines.answers import CallDelta, CallReader
from server.stops import StopFinder


class AnswerText:
    """Folds the text of one choice's answer into content and tool calls.

    Newlines between the end marker and the answer are no part of it, and
    nothing is after the first stop string.

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
            text = self._stops.push(text) if heeds else text
        if self._reader is None:
            return [text] if text else []
        return self._counted(self._reader.push(text, token_ids))

    def close(self) -> list[str | CallDelta]:
        """What was held back, because no text follows."""
        text = self._stops.close()
        if self._reader is None:
            return [text] if text else []
        found = [*self._reader.push(text, ())] if text else []
        return self._counted([*found, *self._reader.close()])

    def _counted(self, found: Sequence[str | CallDelta]) -> list[str | CallDelta]:
        self.calls += sum(isinstance(item, CallDelta) and item.id is not None for item in found)
        return [*found]
