"""The configuration that TRL reads, and the command that runs it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from proctor.training import trl_config
from proctor.training.trl_config import Method, Recipe, RunFiles, launch_command, make_config

FILES = RunFiles(
    "org/model", Path("/run/data.jsonl"), Path("/run/template.jinja"), Path("/run/checkpoints")
)
S1 = {
    "model_name_or_path": "org/model",
    "dtype": "float32",
    "chat_template_path": "/run/template.jinja",
    "datasets": [{"path": "json", "data_files": "/run/data.jsonl"}],
    "output_dir": "/run/checkpoints",
    "max_length": 4096,
    "completion_only_loss": True,
    "packing": False,
    "learning_rate": 1e-5,
    "num_train_epochs": 5.0,
    "max_steps": -1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "optim": "adamw_torch",
    "weight_decay": 1e-4,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "bf16": True,
    "use_cpu": False,
    "gradient_checkpointing": True,
    "seed": 0,
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "epoch",
    "save_total_limit": 1,
}


def test_the_defaults_are_s1s() -> None:
    assert make_config(Recipe(), FILES, 4096, 1, on_cpu=False) == S1


def test_adapters_have_their_own_rate_beside_weights_in_bfloat16() -> None:
    recipe = Recipe(method=Method.LORA, lora_rank=8)
    assert make_config(recipe, FILES, 4096, 1, on_cpu=False) == S1 | {
        "dtype": "bfloat16",
        "learning_rate": 2e-4,
        "use_peft": True,
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target_modules": ["all-linear"],
    }


def test_what_is_given_replaces_the_defaults() -> None:
    recipe = Recipe(
        learning_rate=3e-4, epochs=2, max_steps=50, batch=8, device_batch=2, save_steps=10, seed=5
    )
    assert make_config(recipe, FILES, 256, 1, on_cpu=True) == S1 | {
        "max_length": 256,
        "learning_rate": 3e-4,
        "num_train_epochs": 2,
        "max_steps": 50,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "seed": 5,
        "save_strategy": "steps",
        "save_steps": 10,
    }


@pytest.mark.parametrize(
    ("batch", "device_batch", "processes"), [(16, 3, 1), (16, 1, 5), (2, 4, 1)]
)
def test_a_batch_that_cannot_be_divided_is_refused(
    batch: int, device_batch: int, processes: int
) -> None:
    recipe = replace(Recipe(), batch=batch, device_batch=device_batch)
    with pytest.raises(ValueError, match=f"--batch: {batch} is not a multiple of {processes} "):
        make_config(recipe, FILES, 256, processes, on_cpu=False)


def test_one_process_runs_trl_itself() -> None:
    command = launch_command("python", Path("/run/config.yaml"), 1)
    assert command == ["python", "-m", "trl.scripts.sft", "--config", "/run/config.yaml"]


def test_several_gpus_are_launched_with_fsdp() -> None:
    command = launch_command("python", Path("/run/config.yaml"), 8)
    fsdp = command[4]
    assert command[1:4] == ["-m", "accelerate.commands.launch", "--config_file"]
    assert command[5:] == [
        "--num_processes", "8", "-m", "trl.scripts.sft", "--config", "/run/config.yaml"
    ]  # fmt: skip
    settings = yaml.safe_load(Path(fsdp).read_text())
    assert settings["distributed_type"] == "FSDP"
    assert settings["fsdp_config"]["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert Path(fsdp).parent == Path(trl_config.__file__).parent


def test_several_processes_on_a_cpu_are_refused() -> None:
    with pytest.raises(ValueError, match="--processes: several processes need GPUs"):
        make_config(Recipe(), FILES, 256, 2, on_cpu=True)
