"""Splits the tokens of a choice into its two channels, reasoning and answer."""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from proctor.budget import (
    BudgetStateMachine,
    EndReason,
    EngineRecord,
    Label,
    Labelled,
    Outcome,
    TokenBudget,
    replay,
)
from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import Channel, TextDelta, TokenUsage, ToolCallDelta
from proctor.server.channels.forced_spans import ForcedSpan, ThinkingBlock, locate
from proctor.server.engines.base import Codec, Detokenizer, Job, ModelInfo, TokenLogprob
from proctor.server.engines.tool_calls import CallDelta


class SentenceEnd(NamedTuple):
    """Where a sentence or line of the thinking ends.

    Attributes:
        tokens: the number of the choice's tokens up to there.
        thinking_tokens: the number of thinking tokens among them.
    """

    tokens: int
    thinking_tokens: int


class ChannelSplitter:
    """Splits the tokens of one choice into text deltas and tool calls, exactly at the markers.

    If the budget can reject attempts to end the thinking, or be moved, its accounting needs the
    engine's record, which is complete only after the choice has ended. The channel of a token
    depends on the markers only, so until then a state machine without the budget splits the tokens.
    It takes the beginning of an end marker that a continuation follows for a rejected attempt.

    Attributes:
        tokens: the choice's tokens so far.
        answer_tokens: number of tokens in the answer so far.
        last_sentence: the last end of a sentence in the thinking that is open, if the job is
            probed; None if there is none.
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
        """Create a splitter; `push` the tokens of the job from the first on.

        Args:
            codec: the codec of the engine that generates the job.
            model: the model of that engine.
            job: the job.
            index: index of the choice.
            answer: processes the text of the answer.
            scored: the channels for which to return log probabilities.
            with_ids: whether to return token ids.
        """
        self._codec = codec
        self._model = model
        self._job = job
        self._index = index
        self._answer = answer
        self._scored = scored
        self._with_ids = with_ids
        self._ids_returned = 0
        self._replays = job.has_record
        self._follows_sentences = job.probe_allowance > 0
        markers_only = TokenBudget(opened=job.budget.opened, bound=job.budget.bound)
        if job.budget.begins_with_marker:
            markers_only = replace(markers_only, opens=True)
        budget = markers_only if self._replays else job.budget
        self._machine = BudgetStateMachine(budget, model.markers, model.vocabulary)
        rejects = job.budget.demands_thinking
        self._continuations = {ids[0] for ids in job.budget.continuation_ids if rejects}
        self._after: Sequence[int] = job.prompt_ids
        self._detokenizer: Detokenizer | None = None
        self._channel = Channel.ANSWER
        self._labelled = 0
        self._thinking_labelled = 0
        self._blocks: list[ThinkingBlock] = []
        self._unlabelled: deque[TokenLogprob] = deque()
        self._pending_logprobs: list[TokenLogprob] = []
        self.tokens: list[int] = []
        self.answer_tokens = 0
        self.last_sentence: SentenceEnd | None = None

    @property
    def thinking_tokens(self) -> int:
        """The number of thinking tokens so far."""
        return self._machine.tokens

    @property
    def used(self) -> TokenUsage:
        """The token usage so far."""
        return TokenUsage(len(self.tokens), self.thinking_tokens)

    @property
    def calls(self) -> int:
        """The number of tool calls so far."""
        return self._answer.calls

    @property
    def stop_string(self) -> str | None:
        """The stop string that the answer has reached, or None."""
        return self._answer.stop

    @property
    def stopped(self) -> bool:
        """Whether the answer has reached a stop string."""
        return self._answer.stopped

    def push(
        self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> list[TextDelta | ToolCallDelta]:
        """Add tokens and return the text and tool calls that are certain now.

        Args:
            token_ids: the next tokens.
            logprobs: one for each token, or empty.

        Raises:
            DesyncError: if the budget was not enforced, as far as that is visible already.
        """
        first = len(self.tokens)
        self.tokens += token_ids
        if self._follows_sentences:
            return self._push_followed(first, logprobs)
        if logprobs or self._with_ids:
            self._unlabelled += logprobs
            return [delta for token in token_ids for delta in self._split(self._advance(token))]
        deltas: list[TextDelta | ToolCallDelta] = []
        for token in token_ids:
            label = self._machine.advance_plain(token)
            if label is None:
                deltas += self._split(self._advance(token))
            else:
                deltas += self._push_plain(token, label)
        return deltas

    def _push_followed(
        self, first: int, logprobs: Sequence[TokenLogprob]
    ) -> list[TextDelta | ToolCallDelta]:
        """Split the tokens from the `first` on, and note where sentences of the thinking end."""
        self._unlabelled += logprobs
        deltas: list[TextDelta | ToolCallDelta] = []
        for count, token in enumerate(self.tokens[first:], first + 1):
            deltas += self._split(self._advance(token))
            machine = self._machine
            if not machine.thinking:
                self.last_sentence = None
            elif machine.ends_sentence and not machine.pending:
                self.last_sentence = SentenceEnd(count, machine.tokens)
        return deltas

    def _push_plain(self, token: int, label: Label) -> list[TextDelta | ToolCallDelta]:
        """Add a token of plain text, as almost all are: see `BudgetStateMachine.advance_plain`.

        Does what `_split` does with a single token that goes on in its channel, at a fraction of
        the cost.
        """
        channel = Channel.ANSWER if label is Label.ANSWER else Channel.REASONING
        if self._detokenizer is None or channel is not self._channel:
            return self._split([Labelled(token, label)])
        self._labelled += 1
        if label is Label.ANSWER:
            self.answer_tokens += 1
        else:
            self._blocks[-1].end += 1
            self._thinking_labelled += 1
        return self._push_text(self._detokenizer.push((token,)), (token,))

    def _advance(self, token: int) -> list[Labelled]:
        machine = self._machine
        is_rejected = (
            machine.thinking
            and machine.pending > 0
            and token in self._continuations
            and not machine.extends_marker(token)
        )
        return [*(machine.release_partial_marker() if is_rejected else ()), *machine.advance(token)]

    def stop(self) -> list[TextDelta | ToolCallDelta]:
        """Return the last deltas, after a stop string was found."""
        return []

    def close(self, *, cut: bool = False) -> list[TextDelta | ToolCallDelta]:
        """Return the text and tool calls held back so far; no token follows.

        Args:
            cut: whether generation ended at `max_tokens`.
        """
        deltas = self._split(self._machine.flush()) + self._close_detokenizer()
        return deltas + self._to_deltas(self._answer.close(cut=cut)) + self._last_logprobs()

    def outcome(self, unfinished: EndReason, record: EngineRecord | None) -> Outcome:
        """Return the outcome of the thinking.

        Replays all tokens if the budget can reject attempts to end the thinking, or be moved.

        Args:
            unfinished: the end reason if the thinking is still open.
            record: the engine's record; without it, the outcome only has the token counts right.

        Raises:
            DesyncError: if the budget was not enforced.
        """
        machine, model = self._machine, self._model
        if self._replays and record is not None:
            machine = replay(
                self._job.budget,
                model.markers,
                self.tokens,
                record.attempts,
                model.vocabulary,
                record.moves,
            )
        machine.flush()
        return machine.outcome(unfinished)

    def forced_spans(self, outcome: Outcome) -> tuple[ForcedSpan, ...]:
        """Return where forced text is in the reasoning text."""
        return locate(outcome.forced_runs, self._blocks, self.tokens, self._codec)

    def _split(self, labelled: list[Labelled]) -> list[TextDelta | ToolCallDelta]:
        deltas: list[TextDelta | ToolCallDelta] = []
        for label, run in groupby(labelled, key=_token_label):
            items = [*run]
            ids = [item.token for item in items if item.token is not None]
            logprobs = [self._unlabelled.popleft() for _ in ids] if self._unlabelled else []
            if label is None:
                part = [one for item in items for one in self._fragment(item.label, item.text)]
            elif label is Label.MARKER:
                part = self._cross_marker(ids)
            else:
                part = self._decode(label, ids, logprobs)
            self._labelled += len(ids)
            deltas += self._attach_ids(part)
        return deltas

    def _attach_ids(
        self, deltas: list[TextDelta | ToolCallDelta]
    ) -> list[TextDelta | ToolCallDelta]:
        """Add the ids of all tokens so far that no delta has to the last delta."""
        last = deltas[-1] if deltas and self._with_ids else None
        if isinstance(last, TextDelta):
            start, self._ids_returned = self._ids_returned, self._labelled
            deltas[-1] = last._replace(token_ids=tuple(self.tokens[start : self._labelled]))
        return deltas

    def _fragment(self, label: Label, text: bytes) -> list[TextDelta | ToolCallDelta]:
        """Return the text next to a marker within one token, which counts for no channel."""
        deltas = self._close_detokenizer()
        decoded = text.decode(errors="ignore")
        self._channel = Channel.ANSWER if label is Label.ANSWER else Channel.REASONING
        if label is Label.THINKING:
            position = self._labelled
            self._blocks.append(ThinkingBlock((), position, position, decoded))
        elif self._job.budget.bound:
            return deltas  # the grammar applies from the next token on
        return deltas + self._push_text(decoded, [])

    def _decode(
        self, label: Label, ids: list[int], logprobs: list[TokenLogprob]
    ) -> list[TextDelta | ToolCallDelta]:
        eos = self._model.markers.eos
        if self._detokenizer is None:
            special = label is Label.ANSWER and self._answer.parses_calls
            self._detokenizer = self._codec.detokenizer(self._after, special=special)
            self._channel = Channel.ANSWER if label is Label.ANSWER else Channel.REASONING
            if label is Label.THINKING:
                self._blocks.append(ThinkingBlock(self._after, self._labelled, self._labelled))
        if label is Label.ANSWER:
            self.answer_tokens += len(ids)
        else:
            self._blocks[-1].end += len(ids)
            self._thinking_labelled += len(ids)
        if self._channel in self._scored:
            self._pending_logprobs += [each for each in logprobs if each.token not in eos]
        ids = [token for token in ids if token not in eos]
        return self._detokenize(self._detokenizer, ids)

    def _detokenize(
        self, detokenizer: Detokenizer, ids: list[int]
    ) -> list[TextDelta | ToolCallDelta]:
        """Return the text of tokens of one channel, detokenized in the steps that it needs."""
        until = self._answer.tokens_before_stops if self._channel is Channel.ANSWER else 0
        steps = [ids[:until], ids[until:]] if 0 < until < len(ids) else [ids]
        if self._answer.parses_calls:
            # Token by token, as tool parsers may depend on how tokens are grouped in deltas.
            steps = [[token] for token in ids]
        return [item for step in steps for item in self._push_text(detokenizer.push(step), step)]

    def _cross_marker(self, marker: list[int]) -> list[TextDelta | ToolCallDelta]:
        deltas = self._close_detokenizer() + self._last_logprobs()
        self._after = marker
        self._answer.after_marker()
        return deltas

    def _close_detokenizer(self) -> list[TextDelta | ToolCallDelta]:
        if self._detokenizer is None:
            return []
        text, self._detokenizer = self._detokenizer.close(), None
        return self._push_text(text, [])

    def _push_text(self, text: str, ids: Sequence[int]) -> list[TextDelta | ToolCallDelta]:
        if self._channel is Channel.REASONING:
            return [self._text_delta(text)] if text else []
        deltas = self._to_deltas(self._answer.push(text, ids))
        if text and not self._answer.has_begun:  # leading newlines, which were dropped
            self._pending_logprobs.clear()
        return deltas

    def _to_deltas(self, items: Sequence[str | CallDelta]) -> list[TextDelta | ToolCallDelta]:
        return [
            self._text_delta(item)
            if isinstance(item, str)
            else ToolCallDelta(self._index, item, thinking_tokens=self._thinking_labelled)
            for item in items
        ]

    def _text_delta(self, text: str) -> TextDelta:
        logprobs, self._pending_logprobs = tuple(self._pending_logprobs), []
        thinking = self._thinking_labelled
        return TextDelta(self._index, self._channel, text, logprobs, thinking_tokens=thinking)

    def _last_logprobs(self) -> list[TextDelta | ToolCallDelta]:
        """Return log probabilities of tokens without text, as of an incomplete character."""
        return [self._text_delta("")] if self._pending_logprobs else []


def _token_label(item: Labelled) -> Label | None:
    """Return a token's label, or None for text within a token."""
    return None if item.token is None else item.label
