"""Stop strings, found in text that comes piece by piece."""

from collections.abc import Sequence


class StopFinder:
    """Passes text on up to the first stop string.

    The first one is the one that ends first, so that the result does not
    depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Text that is certain: before any stop string, and not the beginning of one."""
        if self.found or not self._stops:
            return "" if self.found else text
        text = self._held + text
        hits = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            self.found = True
            return text[: min(hits)[1]]
        certain = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[certain:]
        return text[:certain]

    def close(self) -> str:
        """Text that was held back, because none follows it directly."""
        held, self._held = self._held, ""
        return "" if self.found else held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next(
        (n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0
    )
