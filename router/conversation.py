"""What a classifier may look at, and how much of it."""

from dataclasses import dataclass

HEAD = 448
TAIL = 192
CUT = "\n"
"""Of a longer text its first and last characters are read: the task stands at its beginning or
its end, and the work stays bounded whatever is pasted between them."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: who speaks ("system", "user", "assistant", "tool") and what."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request as far as difficulty is concerned.

    Attributes:
        turns: in order; the last user turn decides, those before it are context.
        tools: how many tools are offered.
    """

    turns: tuple[Turn, ...]
    tools: int = 0

    @classmethod
    def of(cls, prompt: str) -> "Conversation":
        """A conversation of a single prompt."""
        return cls((Turn("user", prompt),))

    @property
    def prompt(self) -> str:
        """The last user turn's text, "" where there is none."""
        at = self._decisive
        return "" if at is None else self.turns[at].text

    @property
    def context(self) -> tuple[Turn, ...]:
        """The user's and the assistant's turns before the prompt."""
        before = self.turns[: self._decisive or 0]
        return tuple(turn for turn in before if turn.role in ("user", "assistant"))

    @property
    def _decisive(self) -> int | None:
        for at in range(len(self.turns) - 1, -1, -1):
            if self.turns[at].role == "user":
                return at
        return None


def bounded(text: str, head: int = HEAD, tail: int = TAIL) -> str:
    """The text, or its first `head` and last `tail` characters where it is longer."""
    if len(text) <= head + tail:
        return text
    return text[:head] + CUT + text[-tail:]
