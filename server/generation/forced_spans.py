"""Where in the text of a thinking the server's own words stand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from proctor.budget import Forced, ForcedRun
from proctor.server.engines.base import Codec


@dataclass(slots=True)
class ThinkingBlock:
    """One stretch of thinking among the tokens of a choice.

    Attributes:
        after: the tokens that it follows.
        start: position of its first token.
        end: the position after its last.
        text: what it says, where it is of a token that is a marker's for the rest.
    """

    after: Sequence[int]
    start: int
    end: int
    text: str = ""


class ForcedSpan(NamedTuple):
    """Text that the server put into a thinking.

    Attributes:
        kind: a continuation or a wrap-up.
        start: offset of its first character in the text of the whole thinking,
            in Unicode code points.
        end: the offset after its last.
        tokens: how many tokens it is.
    """

    kind: Forced
    start: int
    end: int
    tokens: int


def locate(
    runs: Iterable[ForcedRun],
    blocks: Sequence[ThinkingBlock],
    tokens: Sequence[int],
    codec: Codec,
    *,
    special: bool = False,
) -> tuple[ForcedSpan, ...]:
    """Find the text of forced tokens.

    Where there is none it takes no time, else time in proportion to the tokens.

    Args:
        runs: the forced tokens of a choice, in order.
        blocks: its thinking.
        tokens: all that it generated.
        codec: turns them into text.
        special: whether special tokens have a text too.
    """
    texts = [run for run in runs if run.kind is not Forced.MARKER]
    spans: list[ForcedSpan] = []
    length = 0
    for block in blocks if texts else ():
        length += len(block.text)
        detokenizer = codec.detokenizer(block.after, special=special)
        at = block.start
        for run in texts:
            if block.start <= run.start < block.end:
                start = length + len(detokenizer.push(tokens[at : run.start]))
                length = start + len(detokenizer.push(tokens[run.start : run.end]))
                spans.append(ForcedSpan(run.kind, start, length, run.end - run.start))
                at = run.end
        length += len(detokenizer.push(tokens[at : block.end])) + len(detokenizer.close())
    return tuple(spans)
