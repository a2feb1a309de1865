"""Locates the text of forced tokens in the reasoning text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from proctor.budget import Forced, ForcedRun
from proctor.server.engines.base import Codec


class ForcedSpan(NamedTuple):
    """Text that the server injected into the thinking.

    Attributes:
        kind: a continuation or a wrap-up.
        start: offset of its first character in the whole reasoning text, in Unicode code points.
        end: the offset after its last character.
        tokens: its number of tokens.
    """

    kind: Forced
    start: int
    end: int
    tokens: int


@dataclass(slots=True)
class ThinkingBlock:
    """A contiguous run of thinking tokens of a choice.

    Attributes:
        after: the tokens before it.
        start: position of its first token.
        end: the position after its last token.
        text: set instead of tokens if the block is the part of a single token next to a marker.
    """

    after: Sequence[int]
    start: int
    end: int
    text: str = ""


def locate(
    runs: Iterable[ForcedRun],
    blocks: Sequence[ThinkingBlock],
    tokens: Sequence[int],
    codec: Codec,
    *,
    special: bool = False,
) -> tuple[ForcedSpan, ...]:
    """Return where the text of forced tokens is.

    Detokenizes all thinking tokens, unless no text was forced.

    Args:
        runs: the forced tokens of a choice, in order.
        blocks: its thinking blocks.
        tokens: all its generated tokens.
        codec: the engine's codec.
        special: whether the text includes special tokens.
    """
    text_runs = [run for run in runs if run.kind is not Forced.MARKER]
    spans: list[ForcedSpan] = []
    length = 0
    for block in blocks if text_runs else ():
        length += len(block.text)
        detokenizer = codec.detokenizer(block.after, special=special)
        position = block.start
        for run in text_runs:
            if block.start <= run.start < block.end:
                start = length + len(detokenizer.push(tokens[position : run.start]))
                length = start + len(detokenizer.push(tokens[run.start : run.end]))
                spans.append(ForcedSpan(run.kind, start, length, run.end - run.start))
                position = run.end
        length += len(detokenizer.push(tokens[position : block.end])) + len(detokenizer.close())
    return tuple(spans)
