"""A gateway over vLLM's V2 model runner, whose kernels Triton's interpreter runs on the CPU."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proctor.server.engines import factory
from proctor.server.engines.processes import fork_server
from tests.engine.gateway import TIERS, Gateway, running_gateway
from tests.requirements import require

TRITON = Path(sys.prefix) / "interpreter"
"""A folder for the module path, with Triton (see the Makefile)."""

BACKEND = Path(__file__).parent / "backend"
"""A folder for the module path, with the Triton backend that vLLM requires for its V2 runner."""

ENVIRONMENT = {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}


@contextlib.contextmanager
def running_v2_gateway(**engine: Any) -> Iterator[Gateway]:
    """Serve the demo model on the V2 runner.

    Args:
        engine: vLLM's engine arguments.
    """
    require(TRITON.exists(), "Triton")
    # Compiling the model takes longer than the tests would gain by it.
    arguments = {"enforce_eager": True, "max_num_seqs": 16, **engine}
    with v2_environment(), running_gateway(engine=arguments, tiers=TIERS) as gateway:
        yield gateway


@contextlib.contextmanager
def v2_environment() -> Iterator[None]:
    """Select the V2 runner and the interpreter in the engine processes that start meanwhile."""
    import vllm.config.vllm as config
    from vllm import envs

    with pytest.MonkeyPatch.context() as patch:
        for folder in (TRITON, BACKEND):  # processes that are spawned take over the path
            patch.syspath_prepend(folder)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        # This process has loaded vLLM without the backend, and runs no kernel itself.
        patch.setattr(config, "HAS_TRITON", True)
        # The fork server has loaded it without the backend, too.
        patch.setattr(factory, "preload", lambda: None)
        patch.setattr(fork_server, "_preloaded", [])
        # A running engine reads all variables once, for the whole process.
        envs.disable_envs_cache()
        try:
            yield
        finally:
            envs.disable_envs_cache()
