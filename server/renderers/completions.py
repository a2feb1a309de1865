"""Renders the responses of `POST /v1/completions`."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from proctor.server.channels.deltas import Channel, TextDelta, TokenUsage
from proctor.server.channels.raw_splitter import RawChannelSplitter
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Codec, Engine, Job, TokenLogprob
from proctor.server.generation.base import ChoiceResult, OutputItem, PromptLogprobs, StreamItem
from proctor.server.renderers.base import FINISH_REASONS, ResponseRenderer
from proctor.server.renderers.logprobs import TextLogprobs, columns, prompt_logprobs
from proctor.server.renderers.sse_encoder import OpenAiSseEncoder
from proctor.server.schemas import responses
from proctor.server.schemas.completions import CompletionRequest
from proctor.server.schemas.responses import TextChoice, TextCompletion, TextCompletionChunk
from proctor.server.transport.sse import PLACEHOLDER, SseTemplate, event


@dataclass(frozen=True, slots=True)
class CompletionRenderer(ResponseRenderer):
    """Renders the response to a completion request.

    Attributes:
        request: the request.
        codec: the codec of the engine that generates the response.
        invisible: tokens that are not part of the text.
    """

    request: CompletionRequest
    codec: Codec
    invisible: Collection[int]

    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        return RawChannelSplitter(engine.codec, engine.model, job, index, self.request)

    @property
    def reports_usage(self) -> bool:
        return self.request.continuous_usage

    def encoder(self) -> "CompletionSseEncoder":
        return CompletionSseEncoder(self)

    def body(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> TextCompletion:
        deltas: list[list[TextDelta]] = [[] for _ in results]
        prompt_scores: dict[int, Sequence[TokenLogprob]] = {}
        for item in items:
            if isinstance(item, PromptLogprobs):
                prompt_scores[self._prompt_index(item.choice)] = item.scores
            elif isinstance(item, TextDelta):
                deltas[item.choice].append(item)
        envelope = self.envelope
        return {
            "id": envelope.id,
            "object": "text_completion",
            "created": envelope.created,
            "model": envelope.model,
            "choices": [
                self._choice(
                    result,
                    deltas[result.choice],
                    prompt_scores.get(self._prompt_index(result.choice)),
                )
                for result in sorted(results, key=lambda result: result.choice)
            ],
            "usage": envelope.usage(results),
            "cost": envelope.cost(),
        }

    def choice_delta(self, index: int, text: str) -> responses.TextDelta:
        """Return the next fragment of a choice's text, for a chunk."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def last_delta(self, result: ChoiceResult) -> responses.TextDelta:
        """Return the last fragment of a choice, without text."""
        return {
            "index": result.choice,
            "text": "",
            "logprobs": None,
            "finish_reason": FINISH_REASONS[result.finish],
            "thinking": self.envelope.thinking(result),
        }

    def chunk(
        self, choice: responses.TextDelta, used: TokenUsage | None = None
    ) -> TextCompletionChunk:
        """Return a chunk with a fragment of one choice, and its usage so far, if requested."""
        chunk = self._empty_chunk()
        chunk["choices"] = [choice]
        if used is not None:
            chunk["usage"] = self.envelope.choice_usage(choice["index"], used)
        return chunk

    def usage_chunk(self, results: Sequence[ChoiceResult]) -> TextCompletionChunk:
        """Return the chunk after all choices, with the usage of the request."""
        chunk = self._empty_chunk()
        chunk["usage"] = self.envelope.usage(results)
        chunk["cost"] = self.envelope.cost()
        return chunk

    def _empty_chunk(self) -> TextCompletionChunk:
        envelope = self.envelope
        return {
            "id": envelope.id,
            "object": "text_completion",
            "created": envelope.created,
            "model": envelope.model,
            "choices": [],
        }

    def echo(self, index: int) -> str:
        """Return the beginning of a choice's text: its prompt if the request has `echo`."""
        if not self.request.echo:
            return ""
        _, prompt = self.request.prompts[self._prompt_index(index)]
        return prompt if isinstance(prompt, str) else self.codec.decode(prompt)

    def text_logprobs(self, index: int) -> TextLogprobs:
        """Return the converter of one choice's log probabilities."""
        num_top, token_bytes = self.request.logprobs or 0, self.codec.token_bytes
        return TextLogprobs(num_top, token_bytes, self.invisible, self.echo(index))

    def prompt_ids(self, index: int) -> Sequence[int]:
        """Return the token ids of one choice's prompt."""
        return self.envelope.admission.jobs[index].prompt_ids

    def _prompt_index(self, index: int) -> int:
        return index // self.envelope.admission.choices_per_prompt

    def _choice(
        self,
        result: ChoiceResult,
        deltas: Sequence[TextDelta],
        prompt_scores: Sequence[TokenLogprob] | None,
    ) -> TextChoice:
        request, index = self.request, result.choice
        choice: TextChoice = {
            "index": index,
            "text": self.echo(index) + "".join(delta.text for delta in deltas),
            "logprobs": None,
            "finish_reason": FINISH_REASONS[result.finish],
            "thinking": self.envelope.thinking(result),
        }
        if request.logprobs is not None:
            logprobs, rows = self.text_logprobs(index), []
            if request.echo and prompt_scores is not None:
                rows = logprobs.prompt_rows(self.prompt_ids(index), prompt_scores)
            rows += logprobs.next_rows([score for delta in deltas for score in delta.scores])
            choice["logprobs"] = columns(rows)
        if request.prompt_logprobs is not None and prompt_scores is not None:
            choice["prompt_logprobs"] = prompt_logprobs(
                prompt_scores, request.prompt_logprobs, self.codec.token_bytes
            )
        if request.return_token_ids:
            choice["prompt_token_ids"] = self.prompt_ids(index)
            choice["token_ids"] = result.token_ids
        return choice


class CompletionSseEncoder(OpenAiSseEncoder):
    """Encodes the response to a completion request as server-sent events."""

    def __init__(self, renderer: CompletionRenderer) -> None:
        self._renderer = renderer
        self._with_ids = bool(renderer.request.return_token_ids)
        self._templates: dict[tuple[int, Channel], SseTemplate] = {}
        self._logprobs: dict[int, TextLogprobs] = {}
        self._ids_sent: Counter[int] = Counter()

    def begin(self, index: int) -> bytes:
        """Return an event with the echoed prompt or the prompt's token ids, if requested.

        If the echoed prompt has log probabilities, it is sent with them, by `item`.
        """
        renderer = self._renderer
        awaits_scores = renderer.request.requested_prompt_logprobs is not None
        echo = "" if awaits_scores else renderer.echo(index)
        if not (echo or self._with_ids):
            return b""
        choice = renderer.choice_delta(index, echo)
        if self._with_ids:
            choice["prompt_token_ids"] = renderer.prompt_ids(index)
            choice["token_ids"] = []
        return event(renderer.chunk(choice, self._no_usage))

    def item(self, item: StreamItem) -> bytes:
        if isinstance(item, PromptLogprobs):
            return self._prompt(item)
        if not isinstance(item, TextDelta):
            return b""
        if not (item.scores or item.token_ids or item.used):
            return self._template(item).fill(item.text)
        choice = self._renderer.choice_delta(item.choice, item.text)
        if item.scores:
            choice["logprobs"] = columns(self._logprobs_of(item.choice).next_rows(item.scores))
        if self._with_ids:
            choice["token_ids"] = item.token_ids
            self._ids_sent[item.choice] += len(item.token_ids)
        return event(self._renderer.chunk(choice, item.used), name=item.channel.value)

    def finish(self, result: ChoiceResult) -> bytes:
        choice = self._renderer.last_delta(result)
        if self._with_ids:
            choice["token_ids"] = result.token_ids[self._ids_sent[result.choice] :]
        used = result.used if self._renderer.reports_usage else None
        return event(self._renderer.chunk(choice, used))

    def usage(self, results: Sequence[ChoiceResult]) -> bytes:
        if not self._renderer.request.include_usage:
            return b""
        return event(self._renderer.usage_chunk(results))

    def _prompt(self, item: PromptLogprobs) -> bytes:
        index, renderer = item.choice, self._renderer
        rows = self._logprobs_of(index).prompt_rows(renderer.prompt_ids(index), item.scores)
        choice = renderer.choice_delta(index, renderer.echo(index))
        choice["logprobs"] = columns(rows)
        return event(renderer.chunk(choice, self._no_usage))

    @property
    def _no_usage(self) -> TokenUsage | None:
        return TokenUsage(0, 0) if self._renderer.reports_usage else None

    def _logprobs_of(self, index: int) -> TextLogprobs:
        if index not in self._logprobs:
            self._logprobs[index] = self._renderer.text_logprobs(index)
        return self._logprobs[index]

    def _template(self, delta: TextDelta) -> SseTemplate:
        key = (delta.choice, delta.channel)
        if key not in self._templates:
            chunk = self._renderer.chunk(self._renderer.choice_delta(delta.choice, PLACEHOLDER))
            self._templates[key] = SseTemplate(chunk, name=delta.channel.value)
        return self._templates[key]
