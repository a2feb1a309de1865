"""Methods that the gateway calls on vLLM's workers, mixed in as `worker_extension_cls`."""

from typing import Any

from proctor.budget.moves import EMPTY_RECORD
from proctor.budget.outcome import EndReason
from proctor.budget.processors import v1, v2
from proctor.budget.processors.drafts import DraftCounts


class BudgetWorkerExtension:
    """Gives access to the worker's budget processor."""

    model_runner: Any

    def move_maximum(
        self, key: str, target: int | None, reason: str | None
    ) -> list[int | str | None] | None:
        """Move the maximum of a running request.

        Args:
            key: the request's key, see `EngineBudget`.
            target: the new maximum, or None to exit early; see `BudgetStateMachine.move_maximum`.
            reason: the end reason if it is reached.

        Returns:
            The fields of the `Move` as it took effect; None if there was none, or this worker
            does not sample the request.

        Raises:
            RuntimeError: if the worker has no budget processor.
        """
        processor = self._processor()
        if processor is None:
            return None
        end_reason = None if reason is None else EndReason(reason)
        move = processor.move_maximum(key, target, end_reason)
        return None if move is None else [*move]

    def take_record(self, key: str) -> dict[str, Any]:
        """Return what is recorded of a request, see `EngineRecord.to_wire`.

        The record is empty on a worker that does not sample: a pipeline stage before
        the last.

        Raises:
            RuntimeError: if the worker has no budget processor.
        """
        processor = self._processor()
        record = EMPTY_RECORD if processor is None else processor.take_record(key)
        return record.to_wire()

    def peek_record(self, key: str) -> dict[str, Any]:
        """Return the same without removing anything: the request may go on, even if preempted.

        Raises:
            RuntimeError: if the worker has no budget processor.
        """
        processor = self._processor()
        record = EMPTY_RECORD if processor is None else processor.peek_record(key)
        return record.to_wire()

    def check_slots(self) -> int:
        """Return the number of slots in use on vLLM's V1 runner, where the processor assigns them.

        Raises:
            RuntimeError: if the slots are inconsistent, or the worker has no budget
                processor.
        """
        processor = self._processor()
        return processor.check_slots() if isinstance(processor, v1.BudgetLogitsProcessor) else 0

    def draft_counts(self) -> DraftCounts:
        """Return the draft tokens of speculative decoding so far, which needs the V2 runner.

        Raises:
            RuntimeError: if the worker has no budget processor.
        """
        processor = self._processor()
        if isinstance(processor, v2.BudgetLogitsProcessor):
            return processor.draft_counts()
        return DraftCounts()

    def _processor(self) -> v1.BudgetLogitsProcessor | v2.BudgetLogitsProcessor | None:
        runner = self.model_runner
        if not runner.vllm_config.use_v2_model_runner:
            processors = runner.input_batch.logitsprocs.all
        elif runner.sampler is not None:
            processors = runner.sampler.logits_processors
        else:
            return None
        for processor in processors:
            if isinstance(processor, v1.BudgetLogitsProcessor | v2.BudgetLogitsProcessor):
                return processor
        raise RuntimeError("the worker has no budget processor")
