"""The account of a turn: the thinking tokens that its earlier calls have spent."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from proctor.server.schemas.messages import Message
from proctor.server.turns.record import TurnRecord


class VerifiedThinking(NamedTuple):
    """A thinking block of an earlier call, as the client sent it back.

    Attributes:
        text: its text, from the client or else from the record; empty if neither has it.
        record: its record; None if it has none that is valid.
        altered: whether the client sent another text than the record's.
    """

    text: str
    record: TurnRecord | None = None
    altered: bool = False

    @property
    def needs_recount(self) -> bool:
        """Whether only the text says how many tokens the block has, or that too."""
        return bool(self.text) and (self.record is None or self.altered)


def turn_start(messages: Sequence[Message]) -> int:
    """Return the index of the message that begins the current turn, the user's last one."""
    users = (index for index in reversed(range(len(messages))) if messages[index].role == "user")
    return next(users, 0)


def count_spent(blocks: Iterable[VerifiedThinking], count: Callable[[str], int]) -> int:
    """Return the thinking tokens that a turn has spent.

    Each block counts as its record says, or its text if it has no record, or the larger of the two
    if they do not belong together. After each record, the total is at least what the record says of
    the turn so far. A record that is out of place can therefore only increase the total.

    Args:
        blocks: the blocks of the turn, oldest first.
        count: returns the number of tokens of a text.
    """
    total = 0
    for block in blocks:
        tokens = count(block.text) if block.needs_recount else 0
        if block.record is not None:
            tokens = max(tokens, block.record.tokens)
            total = max(total + tokens, block.record.spent)
        else:
            total += tokens
    return total
