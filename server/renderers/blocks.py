"""The blocks of a response: its thinking, texts and tool calls, in the order of generation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from proctor.server.channels.deltas import Channel, TextDelta, ToolCallDelta
from proctor.server.generation.base import ChoiceResult, OutputItem

BlockKind = Channel | int
"""What a block has: text of a channel, or the tool call with this index."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive items of one kind.

    Attributes:
        kind: what the block has.
        items: its items, at least one.
        thinking_tokens: the choice's thinking tokens up to the end of the block.
    """

    kind: BlockKind
    items: Sequence[TextDelta | ToolCallDelta]
    thinking_tokens: int

    @property
    def text(self) -> str:
        """The text of the block, or the arguments of its tool call."""
        return "".join(
            item.text if isinstance(item, TextDelta) else item.delta.arguments
            for item in self.items
        )


def kind_of(item: TextDelta | ToolCallDelta) -> BlockKind:
    """Return the kind of block that an item belongs to."""
    return item.channel if isinstance(item, TextDelta) else item.delta.index


def split_into_blocks(items: Iterable[OutputItem], result: ChoiceResult) -> list[Block]:
    """Return the blocks of a choice that has finished."""
    emitted = [item for item in items if isinstance(item, TextDelta | ToolCallDelta)]
    groups = [(kind, [*group]) for kind, group in groupby(emitted, kind_of)]
    ends = [following[0].thinking_tokens for _, (_, following) in pairwise(groups)]
    ends.append(result.thinking_tokens)
    return [Block(kind, group, end) for (kind, group), end in zip(groups, ends, strict=False)]
