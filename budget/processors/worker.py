"""What the gateway may ask of a vLLM worker, mixed into it as `worker_extension_cls`."""

from typing import Any

from budget.processors.v1 import BudgetLogitsProcessor


class BudgetWorkerExtension:
    """Reaches the processor inside the worker."""

    model_runner: Any

    def take_attempts(self, key: str) -> list[int]:
        """Positions where the request `key` had an attempt to close replaced.

        Raises:
            RuntimeError: if this worker runs without our processor.
        """
        for processor in self.model_runner.input_batch.logitsprocs.all:
            if isinstance(processor, BudgetLogitsProcessor):
                return processor.take_attempts(key)
        raise RuntimeError("the worker runs without the budget processor")
