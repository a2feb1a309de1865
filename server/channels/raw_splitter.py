"""Splits the tokens of a raw completion, which is one text with its markers."""

from itertools import groupby

from proctor.budget import Label, Labelled, Outcome
from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import Channel, TextDelta, ToolCallDelta
from proctor.server.channels.forced_spans import ForcedSpan, ThinkingBlock, locate
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Codec, Job, ModelInfo
from proctor.server.schemas.completions import CompletionRequest


class RawChannelSplitter(ChannelSplitter):
    """Turns the tokens of one choice into one text, markers included and nothing trimmed.

    Text deltas still have a channel; markers count as reasoning. Stop strings only apply to the
    answer. Log probabilities cover all tokens, the end-of-turn token included.
    """

    def __init__(
        self, codec: Codec, model: ModelInfo, job: Job, index: int, request: CompletionRequest
    ) -> None:
        answer = AnswerText(request.stop or (), tokens_before_stops=request.min_tokens or 0)
        with_ids = bool(request.return_token_ids)
        super().__init__(codec, model, job, index, answer, with_ids=with_ids)
        self._raw = codec.detokenizer(job.prompt_ids, special=True)

    def stop(self) -> list[TextDelta | ToolCallDelta]:
        """Return the log probabilities of the tokens after the stop string, which have no text."""
        self._pending_logprobs += self._unlabelled
        return self._last_logprobs()

    def close(self, *, cut: bool = False) -> list[TextDelta | ToolCallDelta]:
        deltas = self._split(self._machine.flush()) + self._push_text(self._raw.close(), [])
        return deltas + self._to_deltas(self._answer.close(cut=cut)) + self._last_logprobs()

    def forced_spans(self, outcome: Outcome) -> tuple[ForcedSpan, ...]:
        """Return where forced text is in the whole text."""
        whole = ThinkingBlock(self._job.prompt_ids, 0, len(self.tokens))
        return locate(outcome.forced_runs, [whole], self.tokens, self._codec, special=True)

    def _push_plain(self, token: int, label: Label) -> list[TextDelta | ToolCallDelta]:
        return self._split([Labelled(token, label)])

    def _split(self, labelled: list[Labelled]) -> list[TextDelta | ToolCallDelta]:
        deltas: list[TextDelta | ToolCallDelta] = []
        eos = self._model.markers.eos
        items = [(item.token, item.label) for item in labelled if item.token is not None]
        for is_answer, run in groupby(items, key=lambda item: item[1] is Label.ANSWER):
            ids = [token for token, _ in run]
            self._labelled += len(ids)
            self._pending_logprobs += [self._unlabelled.popleft() for _ in ids if self._unlabelled]
            visible = [token for token in ids if token not in eos]
            if not visible:
                continue
            if is_answer:
                self.answer_tokens += len(visible)
            self._channel = Channel.ANSWER if is_answer else Channel.REASONING
            deltas += self._attach_ids(self._detokenize(self._raw, visible))
        return deltas
