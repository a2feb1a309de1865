"""Stop strings in streamed text."""

from collections.abc import Sequence


class StopFinder:
    """A filter that passes text on up to the first stop string.

    The first stop string is the one that ends first, so that the result does not depend on how
    the text is split into deltas.

    Attributes:
        found: the stop string that was found, or None so far.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._buffer = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Add text and return what cannot be part of a stop string any more."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        text = self._buffer + text
        matches = [
            (start + len(stop), start, stop)
            for stop in self._stops
            if (start := text.find(stop)) >= 0
        ]
        if matches:
            _, start, self.found = min(matches)
            return text[:start]
        cut = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._buffer = text[cut:]
        return text[:cut]

    def close(self) -> str:
        """Return the rest of the text; none follows that could complete a stop string."""
        rest, self._buffer = self._buffer, ""
        return rest if self.found is None else ""


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a prefix of `stop`."""
    return next(
        (n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0
    )
