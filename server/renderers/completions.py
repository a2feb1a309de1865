"""Responses of `POST /v1/completions`: whole, and chunk by chunk."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from proctor.server.engines.base import Codec, Engine, Job, TokenLogprob
from proctor.server.generation.base import (
    Channel,
    ChoiceResult,
    OutputItem,
    PromptLogprobs,
    StreamItem,
    TextDelta,
    TokenUsage,
)
from proctor.server.generation.channels import ChannelSplitter
from proctor.server.generation.raw_channels import RawChannelSplitter
from proctor.server.renderers.base import ResponseRenderer
from proctor.server.renderers.logprobs import TextLogprobs, columns, prompt_logprobs
from proctor.server.schemas.completions import CompletionRequest
from proctor.server.transport.sse import PLACEHOLDER, SseTemplate, event


@dataclass(frozen=True, slots=True)
class CompletionRenderer(ResponseRenderer):
    """What follows the prompts, in OpenAI's older shape.

    Attributes:
        request: the request.
        codec: of the engine that answers it.
        silent: tokens that have no text here.
    """

    request: CompletionRequest
    codec: Codec
    silent: Collection[int]

    def splitter(self, engine: Engine, job: Job, index: int) -> ChannelSplitter:
        """See `ResponseRenderer`."""
        return RawChannelSplitter(engine.codec, engine.model, job, index, self.request)

    def encoder(self, counted: bool) -> "CompletionSseEncoder":
        """See `ResponseRenderer`."""
        return CompletionSseEncoder(self, counted)

    def whole(self, items: Iterable[OutputItem], results: Sequence[ChoiceResult]) -> dict[str, Any]:
        """See `ResponseRenderer`."""
        pieces: list[list[TextDelta]] = [[] for _ in results]
        of_prompts: dict[int, Sequence[TokenLogprob]] = {}
        for item in items:
            if isinstance(item, PromptLogprobs):
                of_prompts[self._prompt(item.choice)] = item.scores
            elif isinstance(item, TextDelta):
                pieces[item.choice].append(item)
        choices = [
            self._whole(end, pieces[end.choice], of_prompts.get(self._prompt(end.choice)))
            for end in sorted(results, key=lambda end: end.choice)
        ]
        return {
            **self.envelope.of_kind("text_completion"),
            "choices": choices,
            **self.envelope.usage_and_cost(results),
        }

    def chunk(
        self, index: int, text: str, used: TokenUsage | None = None, **more: Any
    ) -> dict[str, Any]:
        """Some of one choice's text, and what there is to say of it."""
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None, **more}
        chunk = {**self.envelope.of_kind("text_completion"), "choices": [choice]}
        return chunk if used is None else chunk | self.envelope.so_far(index, used)

    def ended(self, end: ChoiceResult) -> dict[str, Any]:
        """One choice's account."""
        return {"finish_reason": end.finish.value, "thinking": self.envelope.thinking(end)}

    def usage(self, ends: Sequence[ChoiceResult]) -> dict[str, Any]:
        """The chunk after all choices, with what they used."""
        return {
            **self.envelope.of_kind("text_completion"),
            "choices": [],
            **self.envelope.usage_and_cost(ends),
        }

    def echo(self, index: int) -> str:
        """What one choice's text begins with: its prompt, if that is wanted."""
        if not self.request.echo:
            return ""
        _, written = self.request.prompts[self._prompt(index)]
        return written if isinstance(written, str) else self.codec.decode(written)

    def logprobs(self, index: int) -> TextLogprobs:
        """Writes one choice's log probabilities."""
        most, token_bytes = self.request.logprobs or 0, self.codec.token_bytes
        return TextLogprobs(most, token_bytes, self.silent, self.echo(index))

    def prompt_ids(self, index: int) -> Sequence[int]:
        """The tokens of one choice's prompt."""
        return self.envelope.admission.jobs[index].prompt_ids

    def _prompt(self, index: int) -> int:
        return index // self.envelope.admission.choices_per_prompt

    def _whole(
        self,
        end: ChoiceResult,
        pieces: Sequence[TextDelta],
        of_prompt: Sequence[TokenLogprob] | None,
    ) -> dict[str, Any]:
        request, index = self.request, end.choice
        text = self.echo(index) + "".join(piece.text for piece in pieces)
        choice: dict[str, Any] = {"index": index, "text": text, "logprobs": None}
        if request.logprobs is not None:
            logprobs, rows = self.logprobs(index), []
            if request.echo and of_prompt is not None:
                rows = logprobs.of_prompt(self.prompt_ids(index), of_prompt)
            rows += logprobs.of_next([score for piece in pieces for score in piece.scores])
            choice["logprobs"] = columns(rows)
        choice |= self.ended(end)
        if request.prompt_logprobs is not None and of_prompt is not None:
            choice["prompt_logprobs"] = prompt_logprobs(
                of_prompt, request.prompt_logprobs, self.codec.token_bytes
            )
        if request.return_token_ids:
            choice |= {"prompt_token_ids": self.prompt_ids(index), "token_ids": end.token_ids}
        return choice


class CompletionSseEncoder:
    """Writes it as server-sent events, named after their channel."""

    def __init__(self, completion: CompletionRenderer, counted: bool) -> None:
        self._completion = completion
        self._counted = counted
        self._with_ids = bool(completion.request.return_token_ids)
        self._moulds: dict[tuple[int, Channel], SseTemplate] = {}
        self._logprobs: dict[int, TextLogprobs] = {}
        self._identified: Counter[int] = Counter()

    def begin(self, index: int) -> bytes:
        """See `Writer`. The prompt, where it is told and its log probabilities need not come."""
        completion = self._completion
        more: dict[str, Any] = {}
        if self._with_ids:
            more = {"prompt_token_ids": completion.prompt_ids(index), "token_ids": []}
        awaits_scores = completion.request.requested_prompt_logprobs is not None
        echo = "" if awaits_scores else completion.echo(index)
        chunk = completion.chunk(index, echo, self._nothing_used, **more)
        return event(chunk) if echo or more else b""

    def item(self, item: StreamItem) -> bytes:
        """See `Writer`."""
        if isinstance(item, PromptLogprobs):
            return self._prompt(item)
        if not isinstance(item, TextDelta):
            return b""
        if not (item.scores or item.token_ids or item.used):
            return self._mould(item).fill(item.text)
        more: dict[str, Any] = {}
        if item.scores:
            more["logprobs"] = columns(self._logprobs_of(item.choice).of_next(item.scores))
        if self._with_ids:
            more["token_ids"] = item.token_ids
            self._identified[item.choice] += len(item.token_ids)
        chunk = self._completion.chunk(item.choice, item.text, item.used, **more)
        return event(chunk, name=item.channel.value)

    def finish(self, end: ChoiceResult) -> bytes:
        """See `Writer`."""
        more = self._completion.ended(end)
        if self._with_ids:
            more["token_ids"] = end.token_ids[self._identified[end.choice] :]
        used = end.used if self._counted else None
        return event(self._completion.chunk(end.choice, "", used, **more))

    def usage(self, ends: Sequence[ChoiceResult]) -> bytes:
        """See `Writer`."""
        return event(self._completion.usage(ends))

    def _prompt(self, item: PromptLogprobs) -> bytes:
        index, completion = item.choice, self._completion
        rows = self._logprobs_of(index).of_prompt(completion.prompt_ids(index), item.scores)
        echo, logprobs = completion.echo(index), columns(rows)
        return event(completion.chunk(index, echo, self._nothing_used, logprobs=logprobs))

    @property
    def _nothing_used(self) -> TokenUsage | None:
        return TokenUsage(0, 0) if self._counted else None

    def _logprobs_of(self, index: int) -> TextLogprobs:
        if index not in self._logprobs:
            self._logprobs[index] = self._completion.logprobs(index)
        return self._logprobs[index]

    def _mould(self, piece: TextDelta) -> SseTemplate:
        key = (piece.choice, piece.channel)
        if key not in self._moulds:
            chunk = self._completion.chunk(piece.choice, PLACEHOLDER)
            self._moulds[key] = SseTemplate(chunk, name=piece.channel.value)
        return self._moulds[key]
