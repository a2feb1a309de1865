"""`proctor …`: the command line."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from proctor.router import Conversation
from proctor.router import cli as router_cli
from proctor.router.calibration import Row
from proctor.router.calibration_io import read_rows
from proctor.server.api.route import in_words
from proctor.server.cli import keys as keys_cli
from proctor.server.cli import ledger as ledger_cli
from proctor.server.cli.serve import serve
from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.config.settings import ConfigError, Settings, load_settings
from proctor.server.generation.budget_request import BudgetRequest
from proctor.server.generation.budget_resolution import ceilings, resolve
from proctor.server.generation.routing import Router
from proctor.server.storage.errors import LedgerError

COMMANDS = "proctor.commands"
CONFIG = "settings (default: ./proctor.toml)"
EVERYWHERE = "Every setting can also stand in proctor.toml or in PROCTOR_* variables."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        match options.command:
            case "serve":
                return serve(_settings(options))
            case "route":
                print(_route(load_settings({}, options.config), options.prompt))
                return 0
            case "keys":
                return keys_cli.run(options)
            case "ledger":
                return ledger_cli.run(options)
            case "router":
                return router_cli.run(options, _calibration_rows)
            case name:
                status: int = _commands()[name].load().execute(options)
                return status
    except ConfigError as error:
        print(f"proctor: {error}".replace("\n", "\nproctor: "), file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proctor", description="Serve a reasoning model within a thinking budget."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_serve(commands.add_parser("serve", help="serve a model over HTTP", epilog=EVERYWHERE))
    route = commands.add_parser("route", help="tell which budget a prompt would get, and why")
    route.add_argument("--config", type=Path, help=CONFIG)
    route.add_argument("prompt", help="what a user would ask")
    router = commands.add_parser("router", help="train, evaluate or calibrate the router")
    router_cli.add_arguments(router)
    keys = commands.add_parser("keys", help="make, list and revoke keys")
    keys_cli.add_arguments(keys, CONFIG)
    ledger = commands.add_parser("ledger", help="tell what was spent; migrate the database")
    ledger_cli.add_arguments(ledger, CONFIG)
    for name, command in _commands().items():
        module = command.load()
        told = (module.__doc__ or "").partition(": ")[2].strip().rstrip(".")
        module.add_arguments(commands.add_parser(name, help=told))
    return parser


def _commands() -> dict[str, EntryPoint]:
    """Commands of other packages, which add arguments and execute what was chosen."""
    return {found.name: found for found in entry_points(group=COMMANDS)}


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--config", type=Path, help=CONFIG)
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", help="port to listen on (default: 8000)")
    serve.add_argument("--model", help="path or Hugging Face name (default: the demo model)")
    serve.add_argument("--served-model-name", help="what clients call the model")
    serve.add_argument(
        "--alias",
        action="append",
        dest="aliases",
        metavar="NAME",
        help="another name that clients may call it by; may be repeated",
    )
    serve.add_argument(
        "--engine",
        action="append",
        type=_engine_argument,
        metavar="KEY=VALUE",
        help="an engine argument of vLLM's, its value in JSON or plain; may be repeated",
    )
    serve.add_argument("--reasoning-parser", help="vLLM's parser to take the markers from")
    serve.add_argument("--tool-call-parser", help="vLLM's parser of the model's tool calls")
    serve.add_argument("--thinking-start", help="text that opens the thinking")
    serve.add_argument("--thinking-end", help="text that closes the thinking")
    serve.add_argument(
        "--reasoning-format",
        choices=[style.value for style in ReasoningFormat],
        help="where responses carry the thinking",
    )


def _settings(options: argparse.Namespace) -> Settings:
    given = vars(options)
    flags = {
        name: value
        for name, value in given.items()
        if value is not None and name not in ("command", "config")
    }
    if "engine" in flags:
        flags["engine"] = dict(flags["engine"])
    return load_settings(flags, options.config)


def _engine_argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


def _calibration_rows(ledger: str) -> Sequence[Row]:
    """The rows of a ledger, by its URL or as a file of JSON lines.

    Raises:
        ValueError: if there is none.
    """
    if "://" not in ledger:
        return read_rows(Path(ledger))
    try:
        return ledger_cli.calibration_rows(ledger)
    except (ConfigError, LedgerError) as error:
        raise ValueError(str(error)) from error


def _route(settings: Settings, prompt: str) -> str:
    """What a request of this prompt alone would get, in words."""
    routed = Router.load(settings.router).classify_conversation(Conversation.of(prompt))
    resolution = resolve(BudgetRequest(), settings, routed.level, ceilings(settings))
    return in_words(resolution, routed, settings.prices)
