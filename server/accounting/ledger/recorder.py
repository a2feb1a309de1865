"""A request's row while the request runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus

from pydantic import BaseModel

from proctor.server.accounting.cost import PriceModel, RequestCost
from proctor.server.accounting.estimates import UsageHistory
from proctor.server.accounting.ledger.records import (
    MIXED,
    NOT_STARTED,
    DraftRecord,
    LedgerRecord,
    RecordedTexts,
    ReservedAmount,
)
from proctor.server.accounting.ledger.service import Ledger
from proctor.server.engines.base import Finish
from proctor.server.generation.admission import Admission
from proctor.server.generation.channels import Channel, TextDelta, ToolCallDelta
from proctor.server.pricing import Cost, to_nanos

PROMPTS = {"messages", "prompt", "tools"}
"""The fields of a request that hold what was said."""


@dataclass(frozen=True, slots=True)
class LedgerContext:
    """What every request is entered into.

    Attributes:
        tariff: how it is paid for.
        recent: what the last answers took.
        ledger: takes its row, if there is one.
        texts: whether rows hold what was said.
    """

    price_model: PriceModel
    recent: UsageHistory
    ledger: Ledger | None = None
    texts: bool = False


class Recorder:
    """Gathers what the row will hold.

    Attributes:
        bill: what the request costs.
        first: seconds from the request to the first text of each channel.
    """

    def __init__(self, ledger_context: LedgerContext, request_id: str) -> None:
        self._ledger_context = ledger_context
        self._request_id = request_id
        self._time = datetime.now(UTC)
        self._name = self._model = self._key = self._request = ""
        self._admission: Admission | None = None
        self._said: dict[Channel, list[str]] = {channel: [] for channel in Channel}
        self.request_cost = RequestCost(ledger_context.price_model)
        self.first: dict[Channel, float] = {}

    @property
    def time(self) -> datetime:
        """When it came."""
        return self._time

    @property
    def cost(self) -> Cost | None:
        """What it has cost so far; None where no price is known, or it was refused."""
        if self._admission is None:
            return None
        return _cost(self._admission, self.request_cost)

    @property
    def ended(self) -> DraftRecord | None:
        """What is known of it when its choices have ended, and what it took; None if refused."""
        admission = self._admission
        if admission is None:
            return None
        cost, tokens = self.cost, admission.prompt_tokens + self.request_cost.completion_tokens
        return self._draft(
            admission, ReservedAmount(tokens, 0 if cost is None else to_nanos(cost.total))
        )

    def admitted(
        self,
        name: str,
        model: str,
        asked: BaseModel,
        admission: Admission,
        key: str,
        held: Callable[[], ReservedAmount],
    ) -> None:
        """Note what was let in; see `Meter.admitted`."""
        self._name, self._model, self._admission, self._key = name, model, admission, key
        self.request_cost.choices_per_prompt = admission.choices_per_prompt
        if self._ledger_context.texts:
            self._request = asked.model_dump_json(include=PROMPTS, exclude_unset=True)
        if self._ledger_context.ledger is not None:
            self._ledger_context.ledger.begin(name, lambda: self._draft(admission, held()))

    def saw(self, item: TextDelta | ToolCallDelta) -> None:
        """Note what was said, where that is kept."""
        if self._ledger_context.texts and isinstance(item, TextDelta):
            self._said[item.channel].append(item.text)

    def close(self, status: int, seconds: float) -> None:
        """Hand the row over; a request that was refused has none."""
        admission, ledger_context = self._admission, self._ledger_context
        if admission is None:
            return
        if status == HTTPStatus.OK:
            ledger_context.recent.note(
                admission.resolution.label, self.request_cost, admission.prompt_tokens
            )
        if ledger_context.ledger is not None:
            ledger_context.ledger.put(self._row(admission, status, seconds, self.request_cost))

    def _draft(self, admission: Admission, held: ReservedAmount) -> DraftRecord:
        """What is known of it: its row, if its server is lost now."""
        seconds = (datetime.now(UTC) - self._time).total_seconds()
        request_cost = self.request_cost.so_far()
        whole = len(request_cost.ends) == len(admission.jobs)
        answered = whole and all(end.finish is not Finish.ABORT for end in request_cost.ends)
        status = HTTPStatus.OK if answered else HTTPStatus.INTERNAL_SERVER_ERROR
        row = self._row(admission, status, seconds, request_cost)
        return DraftRecord(replace(row, texts=None, estimated=True), held)

    def _row(
        self, admission: Admission, status: int, seconds: float, request_cost: RequestCost
    ) -> LedgerRecord:
        ends, budget = request_cost.ends, admission.resolution.requested
        outcomes = [end.outcome for end in ends]
        return LedgerRecord(
            id=self._name,
            request_id=self._request_id,
            time=self._time,
            key=self._key or None,
            model=self._model,
            status=status,
            tier=admission.resolution.label,
            source=admission.resolution.source.value,
            asked_min_tokens=budget.min_tokens,
            asked_max_tokens=budget.max_tokens,
            min_tokens=min(job.budget.minimum for job in admission.jobs),
            max_tokens=max(job.budget.maximum or 0 for job in admission.jobs),
            clamped_by=",".join(admission.clamped_by),
            choices=len(admission.jobs),
            prompt_tokens=admission.prompt_tokens,
            cached_tokens=request_cost.cached_tokens,
            thinking_tokens=sum(outcome.tokens for outcome in outcomes),
            forced_tokens=sum(sum(outcome.forced.values()) for outcome in outcomes),
            answer_tokens=sum(end.answer_tokens for end in ends),
            completion_tokens=request_cost.completion_tokens,
            continuations=sum(outcome.continuations for outcome in outcomes),
            end_reason=one_of(outcome.end_reason.value for outcome in outcomes),
            finish_reason=one_of(admission.finish_reason(end.finish, end.calls) for end in ends),
            first_reasoning_seconds=self.first.get(Channel.REASONING),
            first_answer_seconds=self.first.get(Channel.ANSWER),
            seconds=seconds,
            cost=_cost(admission, request_cost),
            texts=self._texts(),
        )

    def _texts(self) -> RecordedTexts | None:
        if not self._ledger_context.texts:
            return None
        thinking, answer = ("".join(self._said[channel]) for channel in Channel)
        return RecordedTexts(self._request, thinking, answer)


def _cost(admission: Admission, request_cost: RequestCost) -> Cost | None:
    return request_cost.cost(admission.prompt_tokens if request_cost.ends else 0)


def one_of(reasons: Iterable[str]) -> str:
    """The one reason that all choices share, or a word that says that there is none."""
    found = {*reasons}
    return found.pop() if len(found) == 1 else MIXED if found else NOT_STARTED
