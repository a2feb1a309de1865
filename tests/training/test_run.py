"""`proctor train` as it is used, with TRL's own trainer where that is installed."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from proctor.training import cli
from proctor.training.check import check_checkpoint
from tests.training.command import train


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight examples."""
    path = tmp_path / "data.jsonl"
    rows = [
        {"question": f"{a} + 2?", "trace": f"{a} and 2 make {a + 2}.", "answer": str(a + 2)}
        for a in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def execute(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.execute(parser.parse_args([str(each) for each in arguments]))


def losses(out: Path) -> list[float]:
    """Return the losses of the steps, from the last checkpoint."""
    folder = max(
        (out / "checkpoints").glob("checkpoint-*"), key=lambda each: int(each.name.split("-")[1])
    )
    state: dict[str, Any] = json.loads((folder / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_a_dry_run_writes_the_configuration_and_the_data(
    tiny_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["run", data, "--model", tiny_model, "--out", out, "--dry-run"]
    assert execute(*arguments, "--batch", "8", "--epochs", "2") == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["model_name_or_path"] == str(tiny_model)
    assert config["datasets"] == [{"path": "json", "data_files": str(out / "data.jsonl")}]
    assert config["gradient_accumulation_steps"] == 8
    rows = [json.loads(line) for line in (out / "data.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    longest = max(len(row["input_ids"]) for row in rows)
    assert config["max_length"] >= longest > config["max_length"] - 64
    assert all(len(row["input_ids"]) == len(row["completion_mask"]) for row in rows)
    printed = capsys.readouterr().out
    assert "8 examples" in printed
    assert f"trl.scripts.sft --config {out / 'config.yaml'}" in printed


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--block-size", "32"], "--block-size: 32 would cut 8 of 8 examples"),
        (["--batch", "3", "--device-batch", "2"], "--batch: 3 is not a multiple"),
        (["--markers", "tokens", "--method", "lora"], "does not train the embeddings"),
        (["--thinking-end", ""], "must be set together"),
        (["--processes", "2"], "several processes need GPUs"),
    ],
)
def test_runs_that_would_go_wrong_are_refused(
    tiny_model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    error: str,
) -> None:
    monkeypatch.setattr(cli, "_has_gpu", lambda: False)
    command = ["run", data, "--model", tiny_model, "--out", tmp_path / "out", "--dry-run"]
    assert execute(*command, *arguments) == 1
    assert error in capsys.readouterr().err


def test_missing_libraries_are_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trl" else name)
    assert execute("run", data, "--model", "org/model") == 1
    assert "requires the extra 'train'; missing: trl" in capsys.readouterr().err


def test_a_run_is_resumed_only_from_a_checkpoint(
    tiny_model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "LIBRARIES", ())
    out = tmp_path / "out"
    assert execute("run", data, "--model", tiny_model, "--out", out, "--resume") == 1
    assert "has no checkpoint" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "marker_tokens"),
    [
        (["--method", "full", "--markers", "text"], (7, 8)),
        (["--method", "full", "--markers", "tokens"], (1, 1)),
        (["--method", "lora", "--markers", "text"], (7, 8)),
    ],
    ids=["full", "tokens", "lora"],
)
def test_a_trained_model_has_learned_and_can_be_served(
    tiny_model: Path,
    data: Path,
    tmp_path: Path,
    arguments: list[str],
    marker_tokens: tuple[int, int],
) -> None:
    out = tmp_path / "out"
    options = [data, "--model", tiny_model, "--out", out, *arguments]
    options += ["--batch", 8, "--device-batch", 4, "--learning-rate", 0.01, "--save-steps", 3]
    done = train(*options, "--max-steps", 3)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"proctor serve --model {out / 'model'}" in done.stdout
    first = losses(out)
    assert len(first) == 3
    assert first[-1] < first[0]
    found = check_checkpoint(out / "model")
    assert found.marker_tokens == marker_tokens
    assert found.opened
    model: Any = AutoModelForCausalLM.from_pretrained(out / "model")
    before: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    changed = [
        name
        for name, weight in model.named_parameters()
        if "layers" in name and not weight.equal(before.get_parameter(name).to(weight.dtype))
    ]
    assert any("q_proj" in name for name in changed)
    assert len(AutoTokenizer.from_pretrained(out / "model")) <= model.config.vocab_size
    if arguments[1] == "lora":
        assert not any("norm" in name for name in changed)
        resumed = train(*options, "--max-steps", 6, "--resume")
        assert resumed.returncode == 0, resumed.stderr[-2000:]
        assert losses(out)[:3] == first
        assert len(losses(out)) == 6
