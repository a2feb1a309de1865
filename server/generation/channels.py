"""One choice's tokens, split into its two channels."""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

from proctor.budget import (
    BudgetStateMachine,
    EndReason,
    Label,
    Labelled,
    Outcome,
    TokenBudget,
    replay,
)
from proctor.server.engines.base import Codec, Detokenizer, Job, ModelInfo, TokenLogprob
from proctor.server.engines.tool_calls import CallDelta
from proctor.server.generation.answer_text import AnswerText
from proctor.server.generation.forced_spans import ForcedSpan, ThinkingBlock, locate


class Channel(StrEnum):
    """Which of a choice's two texts."""

    REASONING = "reasoning"
    ANSWER = "answer"


class TokenUsage(NamedTuple):
    """What one choice has used so far, in tokens."""

    tokens: int
    thinking: int


class TextDelta(NamedTuple):
    """Some text of one channel of one choice.

    Attributes:
        scores: of the channel's tokens since its last piece, where they are told.
        token_ids: of the choice's tokens since its last piece, where they are told.
        used: by its choice so far, where that is told.
    """

    choice: int
    channel: Channel
    text: str
    scores: tuple[TokenLogprob, ...] = ()
    token_ids: tuple[int, ...] = ()
    used: TokenUsage | None = None


class ToolCallDelta(NamedTuple):
    """Some of a tool call in one choice's answer."""

    choice: int
    delta: CallDelta
    used: TokenUsage | None = None

    @property
    def channel(self) -> Channel:
        """Calls are part of the answer."""
        return Channel.ANSWER


class ChannelSplitter:
    """Folds one choice's tokens into pieces of text and tool calls, exact at the markers.

    Where attempts to close may be turned down, the account needs the engine's
    record of them, which is complete only at the end. Which channel a token
    belongs to depends on the markers alone, so until then such a choice is
    split by a machine without its budget. There the beginning of an end marker
    that a continuation follows is taken for one that was turned down.
    """

    def __init__(
        self,
        codec: Codec,
        model: ModelInfo,
        job: Job,
        index: int,
        answer: AnswerText,
        scored: Collection[Channel] = (),
        with_ids: bool = False,
    ) -> None:
        """Begin before the job's first token.

        Args:
            codec: of the engine that generates it.
            model: likewise.
            job: what is generated.
            index: which choice it is.
            answer: takes the text of the answer.
            scored: whose tokens' scores are told.
            with_ids: whether the ids of its tokens are.
        """
        self._codec = codec
        self._model = model
        self._job = job
        self._index = index
        self._answer = answer
        self._scored = scored
        self._with_ids = with_ids
        self._identified = 0
        self._replays = job.budget.demands_thinking
        plain = TokenBudget(opened=job.budget.opened, bound=job.budget.bound)
        if job.budget.begins_with_marker:
            plain = replace(plain, opens=True)
        budget = plain if self._replays else job.budget
        self._machine = BudgetStateMachine(budget, model.markers, model.vocabulary)
        self._continuations = {ids[0] for ids in job.budget.continuation_ids}
        self._after: Sequence[int] = job.prompt_ids
        self._detokenizer: Detokenizer | None = None
        self._channel = Channel.ANSWER
        self._labelled = 0
        self._blocks: list[ThinkingBlock] = []
        self._unlabelled: deque[TokenLogprob] = deque()
        self._untold: list[TokenLogprob] = []
        self.tokens: list[int] = []
        self.answer_tokens = 0

    @property
    def thinking_tokens(self) -> int:
        """Thinking tokens so far."""
        return self._machine.tokens

    @property
    def used(self) -> TokenUsage:
        """Tokens so far."""
        return TokenUsage(len(self.tokens), self.thinking_tokens)

    @property
    def calls(self) -> int:
        """Tool calls so far."""
        return self._answer.calls

    @property
    def stopped(self) -> bool:
        """Whether the answer has come to a stop string."""
        return self._answer.stopped

    def push(
        self, token_ids: Sequence[int], scores: Sequence[TokenLogprob] = ()
    ) -> list[TextDelta | ToolCallDelta]:
        """What is certain after these tokens.

        Args:
            token_ids: the next ones.
            scores: one for each, or none at all.

        Raises:
            DesyncError: if the budget was not enforced, where that shows at once.
        """
        self.tokens += token_ids
        self._unlabelled += scores
        return self._pieces([item for token in token_ids for item in self._advance(token)])

    def _advance(self, token: int) -> list[Labelled]:
        machine = self._machine
        turned_down = (
            self._replays
            and machine.thinking
            and machine.pending > 0
            and token in self._continuations
            and not machine.extends_marker(token)
        )
        return [*(machine.release_partial_marker() if turned_down else ()), *machine.advance(token)]

    def stop(self) -> list[TextDelta | ToolCallDelta]:
        """What there is to tell after the text has stopped; nothing more may follow."""
        return []

    def close(self, *, cut: bool = False) -> list[TextDelta | ToolCallDelta]:
        """What was held back, because no token follows.

        Args:
            cut: whether generation ended for want of tokens.
        """
        pieces = self._pieces(self._machine.flush()) + self._end_run()
        return pieces + self._found(self._answer.close(cut=cut)) + self._last_scores()

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

    def forced_spans(self, outcome: Outcome) -> tuple[ForcedSpan, ...]:
        """Where in the text of the thinking its forced tokens stand; nothing if it has no text."""
        return locate(outcome.forced_runs, self._blocks, self.tokens, self._codec)

    def _pieces(self, labelled: list[Labelled]) -> list[TextDelta | ToolCallDelta]:
        pieces: list[TextDelta | ToolCallDelta] = []
        for label, run in groupby(labelled, key=_kind):
            items = [*run]
            ids = [item.token for item in items if item.token is not None]
            scores = [self._unlabelled.popleft() for _ in ids] if self._unlabelled else []
            if label is None:
                found = [one for item in items for one in self._fragment(item.label, item.text)]
            elif label is Label.MARKER:
                found = self._cross(ids)
            else:
                found = self._decode(label, ids, scores)
            self._labelled += len(ids)
            pieces += self._identify(found)
        return pieces

    def _identify(self, found: list[TextDelta | ToolCallDelta]) -> list[TextDelta | ToolCallDelta]:
        """Give the last piece the ids of all tokens up to here that none has told."""
        last = found[-1] if found and self._with_ids else None
        if isinstance(last, TextDelta):
            told, self._identified = self._identified, self._labelled
            found[-1] = last._replace(token_ids=tuple(self.tokens[told : self._labelled]))
        return found

    def _fragment(self, label: Label, text: bytes) -> list[TextDelta | ToolCallDelta]:
        """Text out of a token that is a marker's for the rest; no token of its channel."""
        pieces = self._end_run()
        said = text.decode(errors="ignore")
        self._channel = Channel.ANSWER if label is Label.ANSWER else Channel.REASONING
        if label is Label.THINKING:
            at = self._labelled
            self._blocks.append(ThinkingBlock((), at, at, said))
        elif self._job.budget.bound:
            return pieces  # the grammar binds from the next token on
        return pieces + self._text(said, [])

    def _decode(
        self, label: Label, ids: list[int], scores: list[TokenLogprob]
    ) -> list[TextDelta | ToolCallDelta]:
        eos = self._model.markers.eos
        if self._detokenizer is None:
            special = label is Label.ANSWER and self._answer.holds_calls
            self._detokenizer = self._codec.detokenizer(self._after, special=special)
            self._channel = Channel.ANSWER if label is Label.ANSWER else Channel.REASONING
            if label is Label.THINKING:
                self._blocks.append(ThinkingBlock(self._after, self._labelled, self._labelled))
        if label is Label.ANSWER:
            self.answer_tokens += len(ids)
        else:
            self._blocks[-1].end += len(ids)
        if self._channel in self._scored:
            self._untold += [score for score in scores if score.token not in eos]
        ids = [token for token in ids if token not in eos]
        return self._answered(self._detokenizer, ids)

    def _answered(
        self, detokenizer: Detokenizer, ids: list[int]
    ) -> list[TextDelta | ToolCallDelta]:
        """The text of tokens of one channel, in the steps that its readers ask for."""
        until = self._answer.unstopped if self._channel is Channel.ANSWER else 0
        steps = [ids[:until], ids[until:]] if 0 < until < len(ids) else [ids]
        if self._answer.holds_calls:
            # How tokens came in deltas must not matter to a parser of calls.
            steps = [[token] for token in ids]
        return [item for step in steps for item in self._text(detokenizer.push(step), step)]

    def _cross(self, marker: list[int]) -> list[TextDelta | ToolCallDelta]:
        pieces = self._end_run() + self._last_scores()
        self._after = marker
        self._answer.after_marker()
        return pieces

    def _end_run(self) -> list[TextDelta | ToolCallDelta]:
        """Give what the detokenizer holds; the next token begins a fresh one."""
        if self._detokenizer is None:
            return []
        text, self._detokenizer = self._detokenizer.close(), None
        return self._text(text, [])

    def _text(self, text: str, ids: Sequence[int]) -> list[TextDelta | ToolCallDelta]:
        if self._channel is Channel.REASONING:
            return [self._piece(text)] if text else []
        found = self._found(self._answer.push(text, ids))
        if text and not self._answer.begun:  # the newlines before it are no part of it
            self._untold.clear()
        return found

    def _found(self, found: Sequence[str | CallDelta]) -> list[TextDelta | ToolCallDelta]:
        return [
            self._piece(item) if isinstance(item, str) else ToolCallDelta(self._index, item)
            for item in found
        ]

    def _piece(self, text: str) -> TextDelta:
        scores, self._untold = tuple(self._untold), []
        return TextDelta(self._index, self._channel, text, scores)

    def _last_scores(self) -> list[TextDelta | ToolCallDelta]:
        """Of tokens that no text came of, as of a character that was never finished."""
        return [self._piece("")] if self._untold else []


def _kind(item: Labelled) -> Label | None:
    """A token's label; None for text that is no token."""
    return None if item.token is None else item.label
