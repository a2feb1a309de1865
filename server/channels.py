"""One choice's tokens, split into the text of its two channels."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from budget import EndReason, Label, Machine, Outcome, TokenBudget, replay
from server.engines.base import Codec, Detokenizer, Job, ModelInfo
from server.stops import StopFinder


class Channel(StrEnum):
    """Which of a choice's two texts."""

    REASONING = "reasoning"
    ANSWER = "answer"


class Piece(NamedTuple):
    """Some text of one channel of one choice."""

    choice: int
    channel: Channel
    text: str


class Channels:
    """Folds one choice's tokens into pieces of text, exact at the markers.

    Where attempts to close may be turned down, the account needs the engine's
    record of them, which is complete only at the end. Which channel a token
    belongs to depends on the markers alone, so until then such a choice is
    split by a machine without its budget.

    Newlines between the end marker and the answer are part of neither text.
    Stop strings are looked for in the answer only.
    """

    def __init__(
        self, codec: Codec, model: ModelInfo, job: Job, index: int, stops: Sequence[str]
    ) -> None:
        self._codec = codec
        self._model = model
        self._job = job
        self._index = index
        self._replays = job.budget.demands_thinking
        budget = TokenBudget(opened=job.budget.opened) if self._replays else job.budget
        self._machine = Machine(budget, model.markers, model.vocabulary)
        self._stops = StopFinder(stops)
        self._after: Sequence[int] = job.prompt_ids
        self._detokenizer: Detokenizer | None = None
        self._channel = Channel.ANSWER
        self._answer_begun = False
        self._trimming = False
        self.tokens: list[int] = []
        self.answer_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether the answer has come to a stop string."""
        return self._stops.found

    def push(self, token_ids: Sequence[int]) -> list[Piece]:
        """The text that is certain after these tokens.

        Raises:
            DesyncError: if the budget was not enforced, where that shows at once.
        """
        self.tokens += token_ids
        advance = self._machine.advance
        return self._pieces([labelled for token in token_ids for labelled in advance(token)])

    def close(self) -> list[Piece]:
        """The text that was held back, because no token follows."""
        pieces = self._pieces(self._machine.flush()) + self._end_run()
        return pieces + self._piece(Channel.ANSWER, self._stops.close())

    def outcome(self, unfinished: EndReason, attempts: frozenset[int] | None) -> Outcome:
        """The account of the thinking; without the record of attempts, only of its tokens.

        It takes time in proportion to the tokens where attempts may be turned down.

        Raises:
            DesyncError: if the budget was not enforced.
        """
        machine, model = self._machine, self._model
        if self._replays and attempts is not None:
            budget = self._job.budget
            machine = replay(budget, model.markers, self.tokens, attempts, model.vocabulary)
        machine.flush()
        return machine.outcome(unfinished)

    def _pieces(self, labelled: list[tuple[int, Label]]) -> list[Piece]:
        pieces: list[Piece] = []
        for label, run in groupby(labelled, key=itemgetter(1)):
            ids = [token for token, _ in run]
            pieces += self._cross(ids) if label is Label.MARKER else self._decode(label, ids)
        return pieces

    def _decode(self, label: Label, ids: list[int]) -> list[Piece]:
        if self._detokenizer is None:
            self._detokenizer = self._codec.detokenizer(self._after)
            self._channel = Channel.ANSWER if label is Label.ANSWER else Channel.REASONING
        if label is Label.ANSWER:
            self.answer_tokens += len(ids)
        return self._text(self._detokenizer.push(ids))

    def _cross(self, marker: list[int]) -> list[Piece]:
        pieces = self._end_run()
        self._after = marker
        self._trimming = not self._answer_begun
        return pieces

    def _end_run(self) -> list[Piece]:
        """Give what the detokenizer holds; the next token begins a fresh one."""
        if self._detokenizer is None:
            return []
        text, self._detokenizer = self._detokenizer.close(), None
        return self._text(text)

    def _text(self, text: str) -> list[Piece]:
        if self._channel is Channel.ANSWER:
            if self._trimming:
                text = text.lstrip("\n")
            if text:
                self._trimming, self._answer_begun = False, True
                text = self._stops.push(text)
        return self._piece(self._channel, text)

    def _piece(self, channel: Channel, text: str) -> list[Piece]:
        return [Piece(self._index, channel, text)] if text else []
