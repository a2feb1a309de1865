"""What the gateway may ask of a vLLM worker, mixed into it as `worker_extension_cls`."""

from typing import Any

from budget.processors import v1, v2


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
        runner = self.model_runner
        if not runner.vllm_config.use_v2_model_runner:
            processors = runner.input_batch.logitsprocs.all
        elif runner.sampler is not None:
            processors = runner.sampler.logits_processors
        else:
            return []
        for processor in processors:
            if isinstance(processor, v1.BudgetLogitsProcessor | v2.BudgetLogitsProcessor):
                return processor.take_attempts(key)
        raise RuntimeError("the worker runs without the budget processor")
