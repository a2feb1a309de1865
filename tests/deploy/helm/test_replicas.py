"""The arguments of the replicas' containers, as vLLM reads them."""

import os
import subprocess
import sys
from argparse import Namespace

import pytest

from proctor.replica.command import parse_arguments
from proctor.server.config.settings import DEMO
from tests.deploy.helm.cases import BASE, CASES, Values
from tests.deploy.helm.chart import NAME, container_of, find, render

DEPLOYED = {
    name: values
    for name, values in CASES.items()
    if values.get("engine", {}).get("enabled", True) and "names" not in name
}


def arguments(values: Values) -> list[str]:
    """Return the arguments of `proctor`."""
    container = container_of(find(render(values), "Deployment", f"{NAME}-engine"))
    assert "command" not in container  # the image's entry point is proctor
    return [str(argument) for argument in container["args"]]


def parsed(values: Values) -> Namespace:
    """Return the options of `vllm serve`."""
    command, *flags = arguments(values)
    assert command == "replica"
    return parse_arguments(["serve", *flags])


@pytest.mark.parametrize("values", DEPLOYED.values(), ids=DEPLOYED)
def test_vllm_accepts_the_arguments(values: Values) -> None:
    options = parsed(values)

    engine, model = values.get("engine", {}), values.get("model", {})
    assert options.model == model.get("name", "Qwen/Qwen3-8B")
    assert options.served_model_name == [model.get("servedName", options.model)]
    assert (options.host, options.port) == ("0.0.0.0", 8000)
    assert options.tensor_parallel_size == engine.get("tensorParallelSize", 1)
    assert options.pipeline_parallel_size == engine.get("pipelineParallelSize", 1)
    assert options.shutdown_timeout > 0


def test_flags_of_every_type() -> None:
    flags = {
        "max-model-len": 4_194_304,
        "gpu-memory-utilization": 0.9,
        "enforce-eager": True,
        "enable-prefix-caching": False,
        "kv-cache-dtype": "fp8",
        "speculative-config": {"method": "ngram", "num_speculative_tokens": 4},
    }

    options = parsed({**BASE, "engine": {"args": flags}})

    assert options.max_model_len == 4_194_304
    assert options.gpu_memory_utilization == pytest.approx(0.9)
    assert options.enforce_eager is True
    assert options.enable_prefix_caching is False
    assert options.kv_cache_dtype == "fp8"
    assert options.speculative_config == {"method": "ngram", "num_speculative_tokens": 4}


def test_the_api_key_is_the_one_that_gateways_use() -> None:
    objects = render(BASE)
    engine = container_of(find(objects, "Deployment", f"{NAME}-engine"))
    gateway = container_of(find(objects, "Deployment"))

    (theirs,) = (item for item in engine["env"] if item["name"] == "VLLM_API_KEY")
    (ours,) = (item for item in gateway["env"] if item["name"] == "PROCTOR_ENGINE__API_KEY")
    assert theirs["valueFrom"] == ours["valueFrom"]


def test_the_example_for_kind_starts_replicas_of_the_demo_model() -> None:
    command, model, *flags = arguments(CASES["kind-cpu"])
    assert model == "/opt/proctor/lib/python3.11/site-packages/proctor/demo/model"
    local = [command, str(DEMO / "model"), *flags]

    done = subprocess.run(
        [sys.executable, "-m", "proctor.server.cli.main", *local, "--print"],
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "vllm serve" in done.stdout
    assert "--shutdown-timeout=120" in done.stdout
    assert "BudgetLogitsProcessor" in done.stdout
