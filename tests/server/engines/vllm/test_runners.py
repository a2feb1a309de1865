"""vLLM loads the logits processors of both runners by their configured names."""

import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.sample.logits_processor import validate_logits_processors_parameters
from vllm.v1.worker.gpu.sample.logits_processor import (
    build_custom_logits_processors_params_validator,
)

from proctor.budget.processors.integration.arguments import PROCESSORS
from proctor.budget.processors.params import KEY

MALFORMED = SamplingParams(extra_args={KEY: {"minimum": "many"}})


def test_the_v1_runner_refuses_a_malformed_budget() -> None:
    validate_logits_processors_parameters([PROCESSORS[False]], SamplingParams())
    with pytest.raises(VLLMValidationError, match="must be an object"):
        validate_logits_processors_parameters([PROCESSORS[False]], MALFORMED)


def test_the_v2_runner_refuses_a_malformed_budget() -> None:
    validate = build_custom_logits_processors_params_validator([PROCESSORS[True]])
    validate(SamplingParams())
    with pytest.raises(VLLMValidationError, match="must be an object"):
        validate(MALFORMED)
