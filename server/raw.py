"""`POST /v1/completions`: from a raw prompt to what follows it."""

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fastapi import Request, Response

from budget import Label, Outcome
from server.admission import Admissions
from server.answer import AnswerText
from server.body import parse, read_body
from server.channels import Call, Channel, Channels, Piece
from server.engines.base import Codec, Engine, Job, ModelInfo
from server.events import HOLE, Mould, event
from server.exchange import Exchange, in_time, respond
from server.forced import Block, ForcedSpan, locate
from server.host import EngineHost
from server.keys.purse import Purse
from server.metrics import Meter
from server.prompts import CompletionRequest
from server.replays import Replays
from server.reply import Reply
from server.settings import Settings
from server.terms import Terms
from server.turn import Choice, Crew, End, Told


class RawChannels(Channels):
    """Folds one choice's tokens into one text, with the markers in it, and nothing trimmed.

    A piece still tells its channel; markers belong to the thinking. Stop strings
    are looked for in the answer only.
    """

    def __init__(
        self, codec: Codec, model: ModelInfo, job: Job, index: int, stops: Sequence[str]
    ) -> None:
        """Begin before the job's first token; see `Channels`."""
        super().__init__(codec, model, job, index, AnswerText(stops))
        self._raw = codec.detokenizer(job.prompt_ids, special=True)

    def close(self) -> list[Piece | Call]:
        """See `Channels`."""
        pieces = self._pieces(self._machine.flush()) + self._text(self._raw.close(), [])
        return pieces + self._found(self._answer.close())

    def forced_spans(self, outcome: Outcome) -> tuple[ForcedSpan, ...]:
        """Where in the whole text the server's own words stand."""
        whole = Block(self._job.prompt_ids, 0, len(self.tokens))
        return locate(outcome.forced_runs, [whole], self.tokens, self._codec, special=True)

    def _pieces(self, labelled: list[tuple[int, Label]]) -> list[Piece | Call]:
        pieces: list[Piece | Call] = []
        told = [item for item in labelled if item[0] not in self._model.markers.eos]
        for is_answer, run in groupby(told, key=lambda item: item[1] is Label.ANSWER):
            ids = [token for token, _ in run]
            if is_answer:
                self.answer_tokens += len(ids)
            self._channel = Channel.ANSWER if is_answer else Channel.REASONING
            pieces += self._text(self._raw.push(ids), ids)
        return pieces


@dataclass(frozen=True, slots=True)
class TextCompletion(Reply):
    """What follows a prompt, in OpenAI's older shape."""

    def whole(self, told: Iterable[Piece | Call], ends: Sequence[End]) -> dict[str, Any]:
        """A response that is not streamed."""
        texts: list[list[str]] = [[] for _ in ends]
        for item in told:
            if isinstance(item, Piece):
                texts[item.choice].append(item.text)
        choices = [
            self._choice(end.choice, "".join(texts[end.choice]), end)
            for end in sorted(ends, key=lambda end: end.choice)
        ]
        return {**self.envelope("text_completion"), "choices": choices, **self.accounts(ends)}

    def chunk(self, index: int, text: str, end: End | None = None) -> dict[str, Any]:
        """Some of one choice's text, and its account if it has ended."""
        return {**self.envelope("text_completion"), "choices": [self._choice(index, text, end)]}

    def usage(self, ends: Sequence[End]) -> dict[str, Any]:
        """The chunk after all choices, with what they used."""
        return {**self.envelope("text_completion"), "choices": [], **self.accounts(ends)}

    def _choice(self, index: int, text: str, end: End | None) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None}
        if end is not None:
            choice |= {"finish_reason": end.finish.value, "thinking": self.thinking(end)}
        return choice


class TextWriter:
    """Writes it as server-sent events, named after their channel."""

    def __init__(self, completion: TextCompletion) -> None:
        self._completion = completion
        self._moulds: dict[tuple[int, Channel], Mould] = {}

    def begin(self, index: int) -> bytes:
        """See `Writer`. Nothing comes before the text."""
        return b""

    def item(self, item: Told) -> bytes:
        """See `Writer`."""
        return self._mould(item).fill(item.text) if isinstance(item, Piece) else b""

    def finish(self, end: End) -> bytes:
        """See `Writer`."""
        return event(self._completion.chunk(end.choice, "", end))

    def usage(self, ends: Sequence[End]) -> bytes:
        """See `Writer`."""
        return event(self._completion.usage(ends))

    def _mould(self, piece: Piece) -> Mould:
        key = (piece.choice, piece.channel)
        if key not in self._moulds:
            chunk = self._completion.chunk(piece.choice, HOLE)
            self._moulds[key] = Mould(chunk, name=piece.channel.value)
        return self._moulds[key]


@dataclass(frozen=True, slots=True)
class TextExchange(Exchange):
    """One admitted completion of a raw prompt."""

    completion: TextCompletion

    def choice(self, job: Job, index: int) -> Choice:
        """See `Exchange`."""
        engine, stops = self.engine, self.request.stop or ()
        channels = RawChannels(engine.codec, engine.model, job, index, stops)
        return Choice(engine, job, index, channels, progress=False)

    def writer(self) -> TextWriter:
        """See `Exchange`."""
        return TextWriter(self.completion)

    def to_json(self, told: Sequence[Piece | Call], ends: Sequence[End]) -> dict[str, Any]:
        """See `Exchange`."""
        return self.completion.whole(told, ends)


class Completions:
    """The endpoint."""

    def __init__(
        self,
        settings: Settings,
        host: EngineHost,
        admissions: Admissions,
        crew: Crew,
        purse: Purse,
        replays: Replays,
    ) -> None:
        self._settings = settings
        self._host = host
        self._admissions = admissions
        self._crew = crew
        self._purse = purse
        self._replays = replays

    async def __call__(self, request: Request) -> Response:
        """Complete one prompt.

        Raises:
            ApiError: if the request is refused.
            BudgetError: if its budget cannot be enforced.
            EngineUnavailable: if the engine dies before the answer is there.
        """
        settings = self._settings
        terms = Terms.of(request, settings.limits)
        self._crew.check()
        body = await read_body(request, settings.limits.max_body_bytes)
        asked = parse(body, CompletionRequest)
        engine = await self._host.ready()
        return await self._replays.once(
            request, body, terms, lambda: self._answer(request, asked, engine, terms)
        )

    async def _answer(
        self, request: Request, asked: CompletionRequest, engine: Engine, terms: Terms
    ) -> Response:
        settings = self._settings
        name = f"cmpl-{uuid.uuid4().hex}"
        admitting = self._admissions.admit_prompt(asked, engine, name, terms.key)
        admission = await in_time(request, terms, admitting)
        terms = terms.leaving(await self._purse.hold(terms.key, name, admission, terms.seconds))
        meter: Meter = request.state.meter
        meter.admitted(name, engine.model.name, asked, admission, terms.name)
        completion = TextCompletion(
            name, int(time.time()), engine.model.name, admission, meter.bill
        )
        exchange = TextExchange(asked, admission, engine, meter, self._crew, terms, completion)
        return await respond(request, exchange, settings.limits)
