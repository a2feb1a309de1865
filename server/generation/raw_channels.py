"""One choice's tokens as one text, for raw completions."""

from itertools import groupby

from proctor.budget import Label, Labelled, Outcome
from proctor.server.engines.base import Codec, Job, ModelInfo
from proctor.server.generation.answer_text import AnswerText
from proctor.server.generation.channels import Channel, ChannelSplitter, TextDelta, ToolCallDelta
from proctor.server.generation.forced_spans import ForcedSpan, ThinkingBlock, locate
from proctor.server.schemas.completions import CompletionRequest


class RawChannelSplitter(ChannelSplitter):
    """Folds one choice's tokens into one text, with the markers in it, and nothing trimmed.

    A piece still tells its channel; markers belong to the thinking. Stop strings
    are looked for in the answer only. Scores are of all tokens, an end of turn too.
    """

    def __init__(
        self, codec: Codec, model: ModelInfo, job: Job, index: int, request: CompletionRequest
    ) -> None:
        """Begin before the job's first token; see `ChannelSplitter`."""
        answer = AnswerText(request.stop or (), unstopped=request.min_tokens or 0)
        with_ids = bool(request.return_token_ids)
        super().__init__(codec, model, job, index, answer, with_ids=with_ids)
        self._raw = codec.detokenizer(job.prompt_ids, special=True)

    def stop(self) -> list[TextDelta | ToolCallDelta]:
        """See `ChannelSplitter`. Tokens beyond the stop have scores, though no text."""
        self._untold += self._unlabelled
        return self._last_scores()

    def close(self, *, cut: bool = False) -> list[TextDelta | ToolCallDelta]:
        """See `ChannelSplitter`."""
        pieces = self._pieces(self._machine.flush()) + self._text(self._raw.close(), [])
        return pieces + self._found(self._answer.close(cut=cut)) + self._last_scores()

    def forced_spans(self, outcome: Outcome) -> tuple[ForcedSpan, ...]:
        """Where in the whole text the server's own words stand."""
        whole = ThinkingBlock(self._job.prompt_ids, 0, len(self.tokens))
        return locate(outcome.forced_runs, [whole], self.tokens, self._codec, special=True)

    def _pieces(self, labelled: list[Labelled]) -> list[TextDelta | ToolCallDelta]:
        pieces: list[TextDelta | ToolCallDelta] = []
        eos = self._model.markers.eos
        items = [(item.token, item.label) for item in labelled if item.token is not None]
        for is_answer, run in groupby(items, key=lambda item: item[1] is Label.ANSWER):
            ids = [token for token, _ in run]
            self._labelled += len(ids)
            self._untold += [self._unlabelled.popleft() for _ in ids if self._unlabelled]
            shown = [token for token in ids if token not in eos]
            if not shown:
                continue
            if is_answer:
                self.answer_tokens += len(shown)
            self._channel = Channel.ANSWER if is_answer else Channel.REASONING
            pieces += self._identify(self._answered(self._raw, shown))
        return pieces
