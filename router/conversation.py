"""The classifier's input: the turns of a conversation, with bounds on their length."""

from dataclasses import dataclass

HEAD = 448
TAIL = 192
CUT = "\n"
"""Of a longer text, the first `HEAD` and last `TAIL` characters are used, joined by `CUT`: the
task usually stands at the beginning or the end, and the work stays bounded."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: its role ("system", "user", "assistant", "tool") and its text."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """The parts of a request that determine its difficulty.

    Attributes:
        turns: the messages in order; the last user turn is classified, earlier ones are context.
        tools: the number of tools offered.
    """

    turns: tuple[Turn, ...]
    tools: int = 0

    @classmethod
    def of(cls, prompt: str) -> "Conversation":
        """Return a conversation of a single user turn."""
        return cls((Turn("user", prompt),))

    @property
    def prompt(self) -> str:
        """The text of the last user turn, or "" if there is none."""
        index = self._last_user_turn
        return "" if index is None else self.turns[index].text

    @property
    def context(self) -> tuple[Turn, ...]:
        """The user and assistant turns before the prompt."""
        earlier = self.turns[: self._last_user_turn or 0]
        return tuple(turn for turn in earlier if turn.role in ("user", "assistant"))

    @property
    def _last_user_turn(self) -> int | None:
        for index in range(len(self.turns) - 1, -1, -1):
            if self.turns[index].role == "user":
                return index
        return None


def bounded(text: str, head: int = HEAD, tail: int = TAIL) -> str:
    """Return the text, or its first `head` and last `tail` characters if it is longer."""
    if len(text) <= head + tail:
        return text
    return text[:head] + CUT + text[-tail:]
