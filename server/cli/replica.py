"""The command `proctor replica`: runs `vllm serve` with what enforces budgets."""

import argparse
from collections.abc import Sequence

from proctor.server.config.section import ConfigError
from proctor.server.config.settings import DEMO

DEFAULT_MODEL = str(DEMO / "model")
EPILOG = "All other flags are those of 'vllm serve' (vllm serve --help=all)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.usage = "proctor replica [model] [options] [flags of vllm serve]"
    parser.add_argument(
        "--print", action="store_true", help="print the command of vLLM, and do not run it"
    )
    parser.add_argument(
        "--reasoning-parser", help="vLLM reasoning parser that defines the thinking markers"
    )
    parser.add_argument("--thinking-start", help="text of the marker that starts the thinking")
    parser.add_argument("--thinking-end", help="text of the marker that ends the thinking")


def run(options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Run or print the command, and return the exit status.

    Args:
        options: the parsed arguments.
        flags: the model, if it is not the demo model, and the flags of `vllm serve`.

    Raises:
        ConfigError: if vLLM is not installed, or a flag or the markers cannot be used.
    """
    try:
        # Imported here: importing vLLM takes seconds, which no other command should wait for.
        from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource
        from proctor.replica.command import replica_command
        from proctor.replica.command import run as run_vllm
    except ImportError as error:
        raise ConfigError(f"vLLM is not installed: {error}") from error
    # Not a positional argument of the parser, which would take the value of an unknown flag for it.
    model, *flags = flags if flags and not flags[0].startswith("-") else (DEFAULT_MODEL, *flags)
    markers = MarkerSource(options.thinking_start, options.thinking_end, options.reasoning_parser)
    try:
        command = replica_command(model, flags, markers)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if options.print:
        print(command)
    else:
        run_vllm(command)
    return 0
