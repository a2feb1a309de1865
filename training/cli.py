"""`proctor train`: fine-tune a model on thinking and answers, with TRL."""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from proctor.training.check import CheckError, check_checkpoint
from proctor.training.checkpoint import save_checkpoint
from proctor.training.encoding import Encoded, choose_block_size, encode
from proctor.training.examples import DataError, Markers, read_examples
from proctor.training.preparation import Prepared, prepare_model, write_data
from proctor.training.trl_config import Method, Recipe, RunFiles, launch_command, make_config

LIBRARIES = ("accelerate", "datasets", "peft", "trl")
THINK = Markers("<think>", "</think>")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `proctor train` to its parser."""
    commands = parser.add_subparsers(dest="train_command", required=True)
    _add_run(commands.add_parser("run", help="train a model, and check what comes out"))
    check = commands.add_parser("check", help="check that budgets find a checkpoint's markers")
    check.add_argument("model", type=Path, help="the folder of the checkpoint")
    _add_markers(check, "marker of {}; both default to what the chat template has", None, None)


def execute(options: argparse.Namespace) -> int:
    """Run the selected command and return its exit status."""
    try:
        if options.train_command == "check":
            given = options.thinking_start is not None or options.thinking_end is not None
            return _check(options.model, _markers(options) if given else None)
        return _run(options)
    except KeyboardInterrupt:
        print("proctor: stopped; --resume continues from the last checkpoint", file=sys.stderr)
        return 130
    except (CheckError, DataError, OSError, ValueError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", type=Path, help="JSON lines with 'messages', or 'question', 'trace' and 'answer'"
    )
    parser.add_argument("--model", required=True, help="path or Hugging Face name")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder of the run")
    parser.add_argument(
        "--method", type=Method, choices=list(Method), default=Method.FULL, help="what is trained"
    )
    parser.add_argument(
        "--markers",
        choices=("text", "tokens"),
        default="text",
        help="whether markers are spelled with the model's tokens, or become tokens of their own",
    )
    _add_markers(parser, "marker of {}", THINK.start, THINK.end)
    parser.add_argument(
        "--block-size",
        type=_positive,
        help="maximum tokens of an example (default: as many as the longest needs)",
    )
    _add_recipe(parser.add_argument_group("training (defaults: s1's)"))
    parser.add_argument(
        "--processes", type=_positive, default=1, help="number of GPUs, which share it by FSDP"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument(
        "--dry-run", action="store_true", help="write the configuration and the data, and stop"
    )


def _add_markers(
    parser: argparse.ArgumentParser, text: str, start: str | None, end: str | None
) -> None:
    parser.add_argument("--thinking-start", default=start, help=text.format("the start"))
    parser.add_argument("--thinking-end", default=end, help=text.format("the end"))


def _add_recipe(group: argparse._ArgumentGroup) -> None:
    default = Recipe()
    group.add_argument(
        "--learning-rate", type=float, help="highest rate (default: 1e-5; LoRA: 2e-4)"
    )
    group.add_argument("--epochs", type=float, default=default.epochs)
    group.add_argument(
        "--max-steps", type=int, default=default.max_steps, help="number of steps, not epochs"
    )
    group.add_argument("--batch", type=_positive, default=default.batch, help="examples per step")
    group.add_argument(
        "--device-batch",
        type=_positive,
        default=default.device_batch,
        help="examples per forward pass",
    )
    group.add_argument("--lora-rank", type=_positive, default=default.lora_rank)
    group.add_argument(
        "--save-steps", type=int, default=default.save_steps, help="steps between checkpoints"
    )
    group.add_argument("--seed", type=int, default=default.seed)


def _run(options: argparse.Namespace) -> int:
    _check_paths(options.data, options.model)
    if not options.dry_run:
        _require_libraries()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    recipe = _recipe(options)
    prepared = prepare_model(
        options.model,
        _markers(options),
        out,
        as_tokens=options.markers == "tokens",
        may_add=recipe.method is Method.FULL,
    )
    config, command = _write_run(options, recipe, prepared, out)
    print(f"configuration: {config}\ncommand: {' '.join(command)}")
    if options.dry_run:
        return 0
    if options.resume:
        command += ["--resume_from_checkpoint", str(_last_checkpoint(out / "checkpoints"))]
    status = subprocess.run(command, check=False).returncode  # noqa: S603 - TRL's own script
    if status:
        print(f"proctor: training ended with status {status}", file=sys.stderr)
        return status
    save_checkpoint(
        prepared.model, out / "checkpoints", prepared.tokenizer, recipe.method, out / "model"
    )
    return _check(out / "model", _markers(options))


def _check_paths(data: Path, model: str) -> None:
    """Return if the data and the model may exist.

    Raises:
        DataError: if one of them does not. Names without a path are Hugging Face's.
    """
    if not data.exists():
        raise DataError(f"{data} does not exist")
    if model.startswith((".", "/", "~")) and not Path(model).is_dir():
        raise DataError(f"--model: there is no folder {model}")


def _require_libraries() -> None:
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"training requires the extra 'train'; missing: {', '.join(missing)} "
            "(--dry-run needs none of them)"
        )


def _recipe(options: argparse.Namespace) -> Recipe:
    return Recipe(
        method=options.method,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        max_steps=options.max_steps,
        batch=options.batch,
        device_batch=options.device_batch,
        lora_rank=options.lora_rank,
        save_steps=options.save_steps,
        seed=options.seed,
    )


def _markers(options: argparse.Namespace) -> Markers:
    if not options.thinking_start or not options.thinking_end:
        raise ValueError("--thinking-start and --thinking-end must be set together")
    return Markers(options.thinking_start, options.thinking_end)


def _write_run(
    options: argparse.Namespace, recipe: Recipe, prepared: Prepared, out: Path
) -> tuple[Path, list[str]]:
    """Write the data and the configuration; return the latter's path and the command to run it."""
    import yaml  # not here for those who only serve

    markers = _markers(options)
    examples = read_examples(options.data, markers)
    encoded = [encode(prepared.tokenizer, example, markers) for example in examples]
    lengths = [len(each.input_ids) for each in encoded]
    block_size = choose_block_size(lengths, options.block_size, prepared.context)
    files = RunFiles(
        model=prepared.model,
        data=out / "data.jsonl",
        chat_template=out / "tokenizer" / "chat_template.jinja",
        out=out / "checkpoints",
    )
    config = make_config(recipe, files, block_size, options.processes, on_cpu=not _has_gpu())
    write_data(files.data, encoded)
    path = out / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    print(_summary(encoded, block_size, prepared))
    return path, launch_command(sys.executable, path, options.processes)


def _summary(encoded: list[Encoded], block_size: int, prepared: Prepared) -> str:
    tokens = sum(len(each.input_ids) for each in encoded)
    learned = sum(sum(each.completion_mask) for each in encoded)
    new = f"; new tokens: {', '.join(prepared.added)}" if prepared.added else ""
    return (
        f"{len(encoded)} examples, {tokens} tokens, {learned} of them with loss; "
        f"block size {block_size}{new}"
    )


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _last_checkpoint(folder: Path) -> Path:
    """Return the newest checkpoint of a run.

    Raises:
        DataError: if there is none.
    """
    found = list(folder.glob("checkpoint-*"))
    if not found:
        raise DataError(f"--resume: {folder} has no checkpoint")
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _check(model: Path, markers: Markers | None) -> int:
    try:
        found = check_checkpoint(model, markers)
    except ImportError as error:
        print(
            f"proctor: markers were not checked, vLLM is missing ({error}); run "
            f"'proctor train check {model}' where the model is served",
            file=sys.stderr,
        )
        return 1
    opened = "opened by the prompt" if found.opened else "opened by the model"
    print(
        f"{model}: thinking between {found.start} and {found.end} "
        f"({found.marker_tokens[0]} and {found.marker_tokens[1]} tokens), {opened}\n"
        f"serve it: proctor serve --model {model} --thinking-start '{found.start}' "
        f"--thinking-end '{found.end}'"
    )
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive integer")
    return int(text)
