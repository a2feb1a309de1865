"""The configuration of a training run, as `trl sft --config` reads it."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

LORA_RATE = 2e-4


class Method(StrEnum):
    """Which weights are trained."""

    FULL = "full"
    LORA = "lora"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. The defaults are s1's (arXiv 2501.19393, train/sft.sh).

    Attributes:
        method: all weights, or adapters beside all linear layers.
        learning_rate: the highest learning rate; None is s1's 1e-5, and 2e-4 with adapters.
        epochs: the number of passes over the data.
        max_steps: if positive, the number of steps instead.
        batch: examples per step, over all processes.
        device_batch: examples per forward pass of a process.
        warmup: the share of the steps in which the rate rises.
        weight_decay: AdamW's weight decay.
        adam_betas: AdamW's decay rates.
        lora_rank: the rank of the adapters.
        save_steps: steps between checkpoints; 0 is one per epoch.
        seed: the seed of the order of the data, and of the adapters.
    """

    method: Method = Method.FULL
    learning_rate: float | None = None
    epochs: float = 5.0
    max_steps: int = -1
    batch: int = 16
    device_batch: int = 1
    warmup: float = 0.05
    weight_decay: float = 1e-4
    adam_betas: tuple[float, float] = (0.9, 0.95)
    lora_rank: int = 16
    save_steps: int = 0
    seed: int = 0

    def accumulation(self, processes: int) -> int:
        """Return the forward passes per step and process.

        Raises:
            ValueError: if a batch cannot be divided so.
        """
        passes, rest = divmod(self.batch, processes * self.device_batch)
        if rest or not passes:
            raise ValueError(
                f"--batch: {self.batch} is not a multiple of {processes} processes x "
                f"--device-batch {self.device_batch}"
            )
        return passes


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run reads and writes.

    Attributes:
        model: path or Hugging Face name of the model that is trained.
        data: the tokenized examples.
        chat_template: the template that goes into the tokenizer of checkpoints.
        out: the folder of checkpoints.
    """

    model: str
    data: Path
    chat_template: Path
    out: Path


def make_config(
    recipe: Recipe, files: RunFiles, block_size: int, processes: int, *, on_cpu: bool
) -> dict[str, Any]:
    """Return the configuration.

    Weights are trained in float32 under bfloat16 autocast: steps of s1's rate are smaller than
    bfloat16 resolves. With adapters, the weights beside them stay in bfloat16.

    Raises:
        ValueError: if the batch cannot be divided, or a CPU is to run several processes.
    """
    if on_cpu and processes > 1:
        raise ValueError("--processes: several processes need GPUs; on a CPU one uses all cores")
    lora = recipe.method is Method.LORA
    rate = recipe.learning_rate or (LORA_RATE if lora else 1e-5)
    config: dict[str, Any] = {
        "model_name_or_path": files.model,
        "dtype": "bfloat16" if lora else "float32",
        "chat_template_path": str(files.chat_template),
        "datasets": [{"path": "json", "data_files": str(files.data)}],
        "output_dir": str(files.out),
        "max_length": block_size,
        "completion_only_loss": True,
        "packing": False,
        "learning_rate": rate,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps,
        "per_device_train_batch_size": recipe.device_batch,
        "gradient_accumulation_steps": recipe.accumulation(processes),
        "lr_scheduler_type": "cosine",
        "warmup_steps": recipe.warmup,
        "optim": "adamw_torch",
        "weight_decay": recipe.weight_decay,
        "adam_beta1": recipe.adam_betas[0],
        "adam_beta2": recipe.adam_betas[1],
        "bf16": True,
        "use_cpu": on_cpu,
        # It trades a fifth of the speed for memory, which a CPU and small models have.
        "gradient_checkpointing": not on_cpu,
        "seed": recipe.seed,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "steps" if recipe.save_steps else "epoch",
        "save_total_limit": 1,
    }
    if recipe.save_steps:
        config["save_steps"] = recipe.save_steps
    if lora:
        config |= {
            "use_peft": True,
            "lora_r": recipe.lora_rank,
            "lora_alpha": 2 * recipe.lora_rank,
            "lora_dropout": 0.0,
            "lora_target_modules": ["all-linear"],
        }
    return config


def launch_command(python: str, config: Path, processes: int) -> list[str]:
    """Return the command that trains: TRL's own script.

    Several processes, each on a GPU, share the model by FSDP (`fsdp.yaml`).
    """
    script = ["-m", "trl.scripts.sft", "--config", str(config)]
    if processes == 1:
        return [python, *script]
    fsdp = str(Path(__file__).with_name("fsdp.yaml"))
    accelerate = ["-m", "accelerate.commands.launch", "--config_file", fsdp]
    return [python, *accelerate, "--num_processes", str(processes), *script]
