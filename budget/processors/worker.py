"""Methods that the gateway calls on vLLM's workers, mixed in as `worker_extension_cls`."""

from typing import Any

from proctor.budget.processors import v1, v2
from proctor.budget.processors.drafts import DraftCounts


class BudgetWorkerExtension:
    """Gives access to the worker's budget processor."""

    model_runner: Any

    def take_attempts(self, key: str) -> list[int]:
        """Return the positions, in a request's output, of tokens that replaced an attempt.

        The result is empty on a worker that does not sample: a pipeline stage before
        the last.

        Raises:
            RuntimeError: if the worker has no budget processor.
        """
        processor = self._processor()
        return [] if processor is None else processor.take_attempts(key)

    def peek_attempts(self, key: str) -> list[int]:
        """Return the same without removing anything: the request may go on, even if preempted.

        Raises:
            RuntimeError: if the worker has no budget processor.
        """
        processor = self._processor()
        return [] if processor is None else processor.peek_attempts(key)

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
