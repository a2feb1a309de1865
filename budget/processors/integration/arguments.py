"""What vLLM's configuration must contain so that budgets are enforced."""

import vllm.envs
from vllm.platforms import current_platform

PROCESSORS = {
    False: "proctor.budget.processors.v1:BudgetLogitsProcessor",
    True: "proctor.budget.processors.v2:BudgetLogitsProcessor",
}
"""The logits processor, by whether vLLM uses its V2 model runner."""

WORKER_EXTENSION = "proctor.budget.processors.worker.BudgetWorkerExtension"

PRIORITY = "priority"
"""vLLM's `scheduling_policy` by which requests have priorities."""

RESERVED_ARGUMENTS = ("logits_processors", "worker_extension_cls")
"""Engine arguments that are set here."""


def splits_prefills() -> bool:
    """Return whether vLLM may split prefills, by its option `enable_chunked_prefill`.

    On the CPU, a seeded request whose prefill is split kills vLLM's V1 runner ("CPU Generator does
    not use offset").
    """
    return bool(vllm.envs.VLLM_USE_V2_MODEL_RUNNER) or not current_platform.is_cpu()
