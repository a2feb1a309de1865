"""What the gateway may ask of a vLLM worker, mixed into it as `worker_extension_cls`."""

from typing import Any

from proctor.budget.processors import v1, v2


class BudgetWorkerExtension:
    """Reaches the processor inside the worker."""

    model_runner: Any

    def take_attempts(self, key: str) -> list[int]:
        """Positions where the request `key` had an attempt to close replaced.

        None on a worker that samples nothing: a stage of a pipeline before its
        last.

        Raises:
            RuntimeError: if this worker runs without our processor.
        """
        processor = self._processor()
        return [] if processor is None else processor.take_attempts(key)

    def check_slots(self) -> int:
        """Requests that hold a slot now, on vLLM's V1 runner, where we hand the slots out.

        Raises:
            RuntimeError: if the books do not add up, or there is no processor.
        """
        processor = self._processor()
        return processor.check_slots() if isinstance(processor, v1.BudgetLogitsProcessor) else 0

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
        raise RuntimeError("the worker runs without the budget processor")
