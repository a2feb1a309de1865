"""The configuration for Ray Serve LLM, without Ray: see deploy/ray/README.md for what was run."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from vllm.engine.arg_utils import AsyncEngineArgs

from deploy.ray.engine_config import Arguments, with_budgets
from proctor.budget.markers import Markers
from proctor.budget.processors.integration.arguments import PROCESSORS, WORKER_EXTENSION
from proctor.budget.processors.params import KEY, markers_of
from proctor.server.config.settings import DEMO
from tests.deploy.monitoring import DEPLOY

FOLDER = DEPLOY / "ray"
MODEL = str(DEMO / "model")


def application(file: str) -> dict[str, Any]:
    """Return the only application of a configuration of Ray Serve."""
    (found,) = yaml.safe_load((FOLDER / file).read_text())["applications"]
    assert found["import_path"] == "deploy.ray.app:build"
    parsed: dict[str, Any] = found
    return parsed


def demo_arguments(**engine: Any) -> Arguments:
    config = {
        "model_loading_config": {"model_id": "demo", "model_source": MODEL},
        "engine_kwargs": engine,
    }
    return Arguments(llm_config=config, runner="v1")


def test_the_engine_has_what_enforces_budgets() -> None:
    arguments = application("demo.yaml")["args"]
    assert arguments["llm_config"]["model_loading_config"]["model_source"] == "demo/model"
    arguments["llm_config"]["model_loading_config"]["model_source"] = MODEL

    engine = with_budgets(Arguments(**arguments))["engine_kwargs"]
    config = AsyncEngineArgs(model=MODEL, **engine).create_engine_config()

    assert config.model_config.logits_processors == [PROCESSORS[False]]
    assert config.parallel_config.worker_extension_cls == WORKER_EXTENSION
    markers = markers_of(config)
    assert markers == Markers.from_wire(engine["additional_config"][KEY])
    assert markers.start != markers.end
    assert config.model_config.max_model_len == 2048


def test_the_configuration_is_kept() -> None:
    arguments = demo_arguments(max_model_len=1024, additional_config={"other": 1})

    config = with_budgets(arguments)

    assert config["model_loading_config"] == arguments.llm_config["model_loading_config"]
    assert config["engine_kwargs"]["max_model_len"] == 1024
    assert config["engine_kwargs"]["additional_config"].keys() == {"other", KEY}
    assert arguments.llm_config["engine_kwargs"] == {
        "max_model_len": 1024,
        "additional_config": {"other": 1},
    }


def test_the_runner_selects_the_processor() -> None:
    arguments = demo_arguments().model_copy(update={"runner": "v2"})

    assert with_budgets(arguments)["engine_kwargs"]["logits_processors"] == [PROCESSORS[True]]


@pytest.mark.parametrize("name", ["logits_processors", "worker_extension_cls"])
def test_what_is_set_here_cannot_be_configured(name: str) -> None:
    with pytest.raises(ValueError, match=f"engine_kwargs.{name} is set by this application"):
        with_budgets(demo_arguments(**{name: "x"}))


def test_files_are_valid_arguments() -> None:
    for file in ("demo.yaml", "serve.yaml"):
        engine = Arguments(**application(file)["args"]).llm_config["engine_kwargs"]
        assert AsyncEngineArgs(model=MODEL, **engine).max_num_seqs == engine["max_num_seqs"]


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ValidationError, match="runer"):
        Arguments(llm_config={}, runer="v1")  # type: ignore[call-arg]


def test_the_readme_has_the_output_of_the_check() -> None:
    output = (FOLDER / "check.txt").read_text()

    assert output in (FOLDER / "README.md").read_text()
    assert output.count("\nok ") == 7
    assert "FAILED" not in output
