"""The command line of `vllm serve` on a replica."""

import json
import os
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.utils.argparse_utils import FlexibleArgumentParser

from proctor.budget.processors.integration.arguments import (
    PROCESSORS,
    RESERVED_ARGUMENTS,
    WORKER_EXTENSION,
    splits_prefills,
)
from proctor.budget.processors.params import with_markers
from proctor.budget.processors.structured_outputs import reasoning_parser
from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource, find_markers
from proctor.replica.handshake import PATH

PLUGINS = "VLLM_PLUGINS"
PLUGIN = "proctor"
SHUTDOWN_SECONDS = 3600
"""How long running requests may take after SIGTERM: `limits.max_request_seconds` of gateways."""

OTHER_PLUGINS = ("vllm.general_plugins", "vllm.platform_plugins", "vllm.stat_logger_plugins")
"""The plugins that vLLM loads by itself, unless `VLLM_PLUGINS` names others."""


@dataclass(frozen=True, slots=True)
class ReplicaCommand:
    """How a replica is started.

    Attributes:
        environment: the environment variables to set.
        arguments: the arguments of `vllm`, `serve` first.
    """

    environment: dict[str, str]
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        """Return the command for a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(["vllm", *self.arguments])])


def replica_command(model: str, flags: Sequence[str], markers: MarkerSource) -> ReplicaCommand:
    """Return the command that starts a replica: `vllm serve` with what budgets need.

    Args:
        model: a path or a Hugging Face name.
        flags: further flags of `vllm serve`.
        markers: the source of the thinking markers.

    Raises:
        ValueError: if a flag is set here, or the markers cannot be found.
        SystemExit: if vLLM does not accept a flag; the message was printed.
    """
    arguments = ["serve", model, *flags, "--enable-scale-out", "--enable-prompt-tokens-details"]
    if not splits_prefills():
        arguments.append("--no-enable-chunked-prefill")
    given = parse_arguments(arguments)
    if not given.shutdown_timeout:
        arguments += ["--shutdown-timeout", str(SHUTDOWN_SECONDS)]
    # Gateways ask for the handshake every two seconds.
    quiet = [*(given.disable_access_log_for_endpoints or "").split(","), PATH]
    arguments += ["--disable-access-log-for-endpoints", ",".join(filter(None, quiet))]
    if given.max_logprobs >= 0:
        # Gateways ask for one more than they show: vLLM cuts its list, in which the sampled token
        # is first, likely or not.
        arguments += ["--max-logprobs", str(given.max_logprobs + 1)]
    for name in RESERVED_ARGUMENTS:
        if getattr(given, name):
            raise ValueError(f"--{name.replace('_', '-')} is set by proctor: leave it out")
    config: VllmConfig = AsyncEngineArgs.from_cli_args(given).create_engine_config()
    tokenizer = cached_tokenizer_from_config(config.model_config)
    _, token_markers = find_markers(tokenizer, config.model_config, markers)
    additional_config = with_markers(config.additional_config, token_markers)
    arguments += [
        "--logits-processors",
        PROCESSORS[config.use_v2_model_runner],
        "--worker-extension-cls",
        WORKER_EXTENSION,
        "--reasoning-parser",
        reasoning_parser.NAME,
        "--reasoning-parser-plugin",
        reasoning_parser.__name__,
        "--additional-config",
        json.dumps(additional_config, separators=(",", ":")),
    ]
    return ReplicaCommand({PLUGINS: _plugins()}, tuple(arguments))


def run(command: ReplicaCommand) -> None:
    """Run vLLM's server in this process until it ends."""
    os.environ.update(command.environment)
    cli_env_setup()
    serve = ServeSubcommand()
    options = parse_arguments(command.arguments)
    serve.validate(options)
    serve.cmd(options)


def parse_arguments(arguments: Sequence[str]) -> Namespace:
    """Parse the arguments of `vllm`, as its own command does."""
    parser = FlexibleArgumentParser(prog="vllm")
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    options: Namespace = parser.parse_args([*arguments])
    options.model = options.model_tag
    return options


def _plugins() -> str:
    """Return the value of `VLLM_PLUGINS`: also all plugins that vLLM would load without it."""
    others = os.environ.get(PLUGINS)
    if others is not None:
        names = [name for name in others.split(",") if name]
    else:
        names = [plugin.name for group in OTHER_PLUGINS for plugin in entry_points(group=group)]
    return ",".join(dict.fromkeys([PLUGIN, *names]))
