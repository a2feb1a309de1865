"""Records one request for the ledger, while it runs."""

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
from proctor.server.channels.deltas import Channel, TextDelta, ToolCallDelta
from proctor.server.engines.base import Finish
from proctor.server.generation.base import Admission, AdmittedRequest, RequestObserver
from proctor.server.nanos import to_nanos

PROMPT_FIELDS = {"messages", "prompt", "tools"}
"""The fields of a request that contain its texts."""


@dataclass(frozen=True, slots=True)
class LedgerContext:
    """What the recorders of all requests share.

    Attributes:
        price_model: the prices of the server.
        usage_history: receives the usage of successful requests.
        ledger: receives the records, or None if there is no ledger.
        record_texts: whether records include texts.
    """

    price_model: PriceModel
    usage_history: UsageHistory
    ledger: RecordSink | None = None
    record_texts: bool = False


class Recorder(RequestObserver):
    """Builds the ledger's record of one request.

    Attributes:
        received_at: when the request was received.
        reserved: what is reserved for the request.
    """

    def __init__(
        self, ledger_context: LedgerContext, request_id: str, request_cost: RequestCost
    ) -> None:
        self.received_at = datetime.now(UTC)
        self.reserved = ReservedAmount(0, 0)
        self._ledger_context = ledger_context
        self._request_id = request_id
        self._request_cost = request_cost
        self._started = time.perf_counter()
        self._first_seconds: dict[Channel, float] = {}
        self._admitted: AdmittedRequest | None = None
        self._texts: dict[Channel, list[str]] = {channel: [] for channel in Channel}

    @property
    def records_texts(self) -> bool:
        """Whether the record includes texts, so that `item` must be called for every item."""
        return self._ledger_context.record_texts

    @property
    def settlement(self) -> DraftRecord | None:
        """The draft of the record with the actual usage in place of the reserved amount.

        Complete once all choices have finished; None if the request was rejected.
        """
        admitted, cost = self._admitted, self._request_cost.charged_cost
        if admitted is None:
            return None
        tokens = admitted.admission.prompt_tokens + self._request_cost.completion_tokens
        nanos = 0 if cost is None else to_nanos(cost.total)
        thinking = sum(result.used.thinking for result in self._request_cost.results)
        return self._draft(admitted, ReservedAmount(tokens, nanos, thinking))

    def admitted(self, admitted: AdmittedRequest) -> None:
        self._admitted = admitted
        if self._ledger_context.ledger is not None:
            self._ledger_context.ledger.begin(
                admitted.id, lambda: self._draft(admitted, self.reserved)
            )

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        self._first_seconds.setdefault(item.channel, time.perf_counter() - self._started)
        if self.records_texts and isinstance(item, TextDelta):
            self._texts[item.channel].append(item.text)

    def finished(self, status: int, seconds: float) -> None:
        admitted, context = self._admitted, self._ledger_context
        if admitted is None:
            return
        admission = admitted.admission
        if status == HTTPStatus.OK:
            sample = self._usage_sample(admission.prompt_tokens)
            context.usage_history.add(admitted.model, admission.resolution.label, sample)
        if context.ledger is not None:
            context.ledger.put(self._record(admitted, status, seconds, self._request_cost))

    def _usage_sample(self, prompt_tokens: int) -> UsageSample:
        request_cost = self._request_cost
        choices, cost = max(len(request_cost.results), 1), request_cost.cost(prompt_tokens)
        thinking = request_cost.completion_tokens - request_cost.answer_tokens
        return UsageSample(
            thinking / choices,
            request_cost.answer_tokens / choices,
            None if cost is None else cost.total,
        )

    def _draft(self, admitted: AdmittedRequest, reserved: ReservedAmount) -> DraftRecord:
        """Return the record that others write if this gateway is lost now."""
        seconds = (datetime.now(UTC) - self.received_at).total_seconds()
        request_cost = self._request_cost.snapshot()
        results = request_cost.results
        complete = len(results) == len(admitted.admission.jobs)
        answered = complete and all(result.finish is not Finish.ABORT for result in results)
        status = HTTPStatus.OK if answered else HTTPStatus.INTERNAL_SERVER_ERROR
        record = self._record(admitted, status, seconds, request_cost)
        return DraftRecord(replace(record, texts=None, estimated=True), reserved)

    def _record(
        self, admitted: AdmittedRequest, status: int, seconds: float, request_cost: RequestCost
    ) -> LedgerRecord:
        admission = admitted.admission
        results, choices = request_cost.results, request_cost.choices
        budget = admission.resolution.requested
        outcomes = [result.outcome for result in results]
        return LedgerRecord(
            id=admitted.id,
            request_id=self._request_id,
            time=self.received_at,
            key=admitted.key or None,
            model=admitted.model,
            status=status,
            tier=admission.resolution.label,
            source=admission.resolution.source.value,
            asked_min_tokens=budget.min_tokens,
            asked_max_tokens=budget.max_tokens,
            min_tokens=min(job.budget.minimum for job in admission.jobs),
            max_tokens=_max_thinking_tokens(admission),
            clamped_by=",".join(admission.clamped_by),
            choices=len(admission.jobs),
            prompt_tokens=admission.prompt_tokens,
            cached_tokens=request_cost.cached_tokens,
            thinking_tokens=sum(result.thinking_tokens for result in results),
            forced_tokens=sum(sum(outcome.forced.values()) for outcome in outcomes),
            answer_tokens=request_cost.answer_tokens,
            completion_tokens=request_cost.completion_tokens,
            continuations=sum(outcome.continuations for outcome in outcomes),
            end_reason=shared_reason(each.outcome.end_reason.value for each in choices),
            finish_reason=shared_reason(admission.finish_reason(each) for each in choices),
            first_reasoning_seconds=self._first_seconds.get(Channel.REASONING),
            first_answer_seconds=self._first_seconds.get(Channel.ANSWER),
            seconds=seconds,
            cost=request_cost.charged_cost,
            session=admitted.session,
            probe_tokens=sum(result.probe_tokens for result in results),
            texts=self._recorded_texts(admitted),
        )

    def _recorded_texts(self, admitted: AdmittedRequest) -> RecordedTexts | None:
        if not self._ledger_context.record_texts:
            return None
        thinking, answer = ("".join(self._texts[channel]) for channel in Channel)
        request = admitted.request.model_dump_json(include=PROMPT_FIELDS, exclude_unset=True)
        return RecordedTexts(request, thinking, answer)


def _max_thinking_tokens(admission: Admission) -> int:
    """Return the largest enforced maximum of a choice."""
    if admission.parallel is not None:
        return admission.parallel.thinking_tokens
    return max(job.max_thinking_tokens or 0 for job in admission.jobs)


def shared_reason(reasons: Iterable[str]) -> str:
    """Return the reason that all choices share, or `MIXED` or `NOT_STARTED` if there is none."""
    distinct = {*reasons}
    return distinct.pop() if len(distinct) == 1 else MIXED if distinct else NOT_STARTED
