"""A request's row while the request runs."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus

from proctor.server.accounting.cost import PriceModel, RequestCost
from proctor.server.accounting.ledger.records import (
    MIXED,
    NOT_STARTED,
    DraftRecord,
    LedgerRecord,
    RecordedTexts,
    RecordSink,
    ReservedAmount,
)
from proctor.server.accounting.usage_history import UsageHistory, UsageSample
from proctor.server.engines.base import Finish
from proctor.server.generation.base import (
    AdmittedRequest,
    Channel,
    RequestObserver,
    TextDelta,
    ToolCallDelta,
)
from proctor.server.pricing import to_nanos

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
    ledger: RecordSink | None = None
    texts: bool = False


class Recorder(RequestObserver):
    """Gathers the ledger's record of one request.

    Attributes:
        time: when the request came.
        reserved: what is reserved for it.
    """

    def __init__(
        self, ledger_context: LedgerContext, request_id: str, request_cost: RequestCost
    ) -> None:
        self.time = datetime.now(UTC)
        self.reserved = ReservedAmount(0, 0)
        self._ledger_context = ledger_context
        self._request_id = request_id
        self._request_cost = request_cost
        self._began = time.perf_counter()
        self._first: dict[Channel, float] = {}
        self._admitted: AdmittedRequest | None = None
        self._texts: dict[Channel, list[str]] = {channel: [] for channel in Channel}

    @property
    def ended(self) -> DraftRecord | None:
        """The record and what it took, once its choices have finished; None if refused."""
        admitted, cost = self._admitted, self._request_cost.charged
        if admitted is None:
            return None
        tokens = admitted.admission.prompt_tokens + self._request_cost.completion_tokens
        nanos = 0 if cost is None else to_nanos(cost.total)
        return self._draft(admitted, ReservedAmount(tokens, nanos))

    def admitted(self, admitted: AdmittedRequest) -> None:
        """See `RequestObserver`."""
        self._admitted = admitted
        if self._ledger_context.ledger is not None:
            self._ledger_context.ledger.begin(
                admitted.id, lambda: self._draft(admitted, self.reserved)
            )

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        """See `RequestObserver`."""
        self._first.setdefault(item.channel, time.perf_counter() - self._began)
        if self._ledger_context.texts and isinstance(item, TextDelta):
            self._texts[item.channel].append(item.text)

    def finished(self, status: int, seconds: float) -> None:
        """See `RequestObserver`."""
        admitted, context = self._admitted, self._ledger_context
        if admitted is None:
            return
        admission = admitted.admission
        if status == HTTPStatus.OK:
            context.recent.add(admission.resolution.label, self._usage(admission.prompt_tokens))
        if context.ledger is not None:
            context.ledger.put(self._record(admitted, status, seconds, self._request_cost))

    def _usage(self, prompt_tokens: int) -> UsageSample:
        request_cost = self._request_cost
        choices, cost = max(len(request_cost.ends), 1), request_cost.cost(prompt_tokens)
        thinking = request_cost.completion_tokens - request_cost.answer_tokens
        return UsageSample(
            thinking / choices,
            request_cost.answer_tokens / choices,
            None if cost is None else cost.total,
        )

    def _draft(self, admitted: AdmittedRequest, reserved: ReservedAmount) -> DraftRecord:
        """The record, if the gateway is lost now."""
        seconds = (datetime.now(UTC) - self.time).total_seconds()
        request_cost = self._request_cost.so_far()
        whole = len(request_cost.ends) == len(admitted.admission.jobs)
        answered = whole and all(end.finish is not Finish.ABORT for end in request_cost.ends)
        status = HTTPStatus.OK if answered else HTTPStatus.INTERNAL_SERVER_ERROR
        record = self._record(admitted, status, seconds, request_cost)
        return DraftRecord(replace(record, texts=None, estimated=True), reserved)

    def _record(
        self, admitted: AdmittedRequest, status: int, seconds: float, request_cost: RequestCost
    ) -> LedgerRecord:
        admission, ends = admitted.admission, request_cost.ends
        budget = admission.resolution.requested
        outcomes = [end.outcome for end in ends]
        return LedgerRecord(
            id=admitted.id,
            request_id=self._request_id,
            time=self.time,
            key=admitted.key or None,
            model=admitted.model,
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
            answer_tokens=request_cost.answer_tokens,
            completion_tokens=request_cost.completion_tokens,
            continuations=sum(outcome.continuations for outcome in outcomes),
            end_reason=one_of(outcome.end_reason.value for outcome in outcomes),
            finish_reason=one_of(admission.finish_reason(end.finish, end.calls) for end in ends),
            first_reasoning_seconds=self._first.get(Channel.REASONING),
            first_answer_seconds=self._first.get(Channel.ANSWER),
            seconds=seconds,
            cost=request_cost.charged,
            texts=self._recorded_texts(admitted),
        )

    def _recorded_texts(self, admitted: AdmittedRequest) -> RecordedTexts | None:
        if not self._ledger_context.texts:
            return None
        thinking, answer = ("".join(self._texts[channel]) for channel in Channel)
        request = admitted.request.model_dump_json(include=PROMPTS, exclude_unset=True)
        return RecordedTexts(request, thinking, answer)


def one_of(reasons: Iterable[str]) -> str:
    """The one reason that all choices share, or a word that says that there is none."""
    found = {*reasons}
    return found.pop() if len(found) == 1 else MIXED if found else NOT_STARTED
