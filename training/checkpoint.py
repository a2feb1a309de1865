"""What comes out of a run: a checkpoint that a server can load."""

from pathlib import Path
from typing import Any

from proctor.training.trl_config import Method


def save_checkpoint(base: str, trained: Path, tokenizer: Any, method: Method, out: Path) -> None:
    """Write what was trained as a bfloat16 checkpoint with its tokenizer and chat template.

    Args:
        base: path or Hugging Face name of the model that was trained.
        trained: the folder that TRL wrote: the weights, or the adapter alone.
        tokenizer: the tokenizer.
        method: which weights were trained; an adapter is merged into the weights of `base`.
        out: the folder of the checkpoint.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if method is Method.LORA:
        from peft import PeftModel

        # Merged in float32: the change of a weight may be less than bfloat16 resolves.
        weights: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(weights, trained).merge_and_unload()
    else:
        model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
