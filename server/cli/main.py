"""The command line, `proctor`."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any

from proctor.router import Conversation
from proctor.router import cli as router_cli
from proctor.router.calibration import Row
from proctor.router.calibration_io import read_rows
from proctor.server.admission.budget_request import BudgetRequest
from proctor.server.admission.budget_resolution import ceilings, resolve
from proctor.server.admission.routing import Router
from proctor.server.api.route import format_text
from proctor.server.cli import keys as keys_cli
from proctor.server.cli import learn as learn_cli
from proctor.server.cli import ledger as ledger_cli
from proctor.server.cli import records as records_cli
from proctor.server.cli import replica as replica_cli
from proctor.server.cli import sessions as sessions_cli
from proctor.server.cli.help import add_defaults
from proctor.server.cli.launch import command as launch_cli
from proctor.server.cli.prepare import check_config
from proctor.server.cli.serve import serve
from proctor.server.cli.terminal import (
    CONFIG_ERROR_STATUS,
    debug,
    is_debugging,
    print_config_error,
)
from proctor.server.cli.workers.supervisor import serve_workers
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings, load_settings
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.errors import in_one_line
from proctor.server.storage.errors import LedgerError

COMMANDS = "proctor.commands"
CONFIG = "path of the settings file (default: ./proctor.toml)"
DEBUG = "--debug"
EPILOG = "All settings can also be set in proctor.toml or by PROCTOR_* environment variables."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == [DEBUG]:
        arguments = arguments[1:]
        debug()
    options, others = _parse(arguments)
    try:
        return _run(options, others)
    except ConfigError as error:
        print_config_error(error)
        return CONFIG_ERROR_STATUS
    except Exception as error:
        if is_debugging():
            raise
        reason = in_one_line(error)
        print(f"proctor: {reason}; `proctor {DEBUG} …` shows the traceback", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, others: Sequence[str]) -> int:
    """Run the command, and return the exit status.

    Raises:
        ConfigError: if a setting is invalid.
    """
    match options.command:
        case "serve":
            return _serve(_settings(options))
        case "check-config":
            return check_config(_settings(options))
        case "route":
            print(_route(load_settings({}, options.config), options.prompt))
            return 0
        case "keys":
            return keys_cli.run(options)
        case "ledger":
            return ledger_cli.run(options)
        case "launch":
            return launch_cli.run(options, others)
        case "replica":
            return replica_cli.run(options, others)
        case "records":
            return records_cli.run(options)
        case "sessions":
            return sessions_cli.run(options)
        case "router" if options.router_command == "learn":
            return learn_cli.run(options)
        case "router":
            return router_cli.run(options, _calibration_rows)
        case name:
            status: int = _commands()[name].load().execute(options)
            return status


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Sequence[str]]:
    """Return the options, and the arguments of the program that the command runs."""
    parser = _parser()
    if arguments[:1] == ["replica"]:
        return parser.parse_known_args(arguments)
    if arguments[:1] == ["launch"]:
        own, others = launch_cli.split_arguments(arguments)
        return parser.parse_args(own), others
    return parser.parse_args(arguments), ()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proctor", description="Serve a reasoning model within a thinking budget."
    )
    parser.add_argument("--version", action="version", version=f"proctor {version('proctor')}")
    parser.add_argument(
        DEBUG, action="store_true", help="show errors with their tracebacks; before the command"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_serve(commands.add_parser("serve", help="serve a model over HTTP", epilog=EPILOG))
    _add_serve(
        commands.add_parser(
            "check-config", help="check the settings, without starting a server", epilog=EPILOG
        )
    )
    route = commands.add_parser("route", help="show which budget a prompt would get, and why")
    route.add_argument("--config", type=Path, help=CONFIG)
    route.add_argument("prompt", help="prompt, as a user message")
    router = commands.add_parser("router", help="train, evaluate, calibrate or teach the router")
    learn = router_cli.add_arguments(router).add_parser(
        "learn", help="learn from answers what each tier gives for a prompt"
    )
    learn_cli.add_arguments(learn, CONFIG)
    keys = commands.add_parser("keys", help="create, list and revoke API keys")
    keys_cli.add_arguments(keys, CONFIG)
    ledger = commands.add_parser("ledger", help="report the spending; migrate the database")
    ledger_cli.add_arguments(ledger, CONFIG)
    launch = commands.add_parser("launch", help="run a coding agent on the server, as one session")
    launch_cli.add_arguments(launch, CONFIG)
    replica = commands.add_parser(
        "replica",
        help="run vLLM's server with budgets, for gateways elsewhere",
        epilog=replica_cli.EPILOG,
        allow_abbrev=False,
    )
    replica_cli.add_arguments(replica)
    records = commands.add_parser("records", help="rotate the secret of the records of turns")
    records_cli.add_arguments(records, CONFIG)
    sessions = commands.add_parser("sessions", help="show what sessions have used")
    sessions_cli.add_arguments(sessions, CONFIG)
    for name, command in _commands().items():
        module = command.load()
        text = (module.__doc__ or "").partition(": ")[2].strip().rstrip(".")
        module.add_arguments(commands.add_parser(name, help=text))
    add_defaults(parser)
    return parser


def _commands() -> dict[str, EntryPoint]:
    """Return the commands of other packages: modules with `add_arguments` and `execute`."""
    return {entry_point.name: entry_point for entry_point in entry_points(group=COMMANDS)}


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--config", type=Path, help=CONFIG)
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", help="port to listen on (default: 8000)")
    serve.add_argument(
        "--workers", help="number of processes, if the engine is elsewhere (default: 1)"
    )
    serve.add_argument("--model", help="path or Hugging Face name (default: the demo model)")
    serve.add_argument("--served-model-name", help="name of the model in the API")
    serve.add_argument(
        "--alias",
        action="append",
        dest="aliases",
        metavar="NAME",
        help="further name of the model in the API; may be repeated",
    )
    serve.add_argument(
        "--engine",
        action="append",
        type=_engine_argument,
        metavar="KEY=VALUE",
        help="vLLM engine argument, with its value as JSON or as plain text; may be repeated",
    )
    serve.add_argument(
        "--reasoning-parser", help="vLLM reasoning parser that defines the thinking markers"
    )
    serve.add_argument("--tool-call-parser", help="vLLM parser of the model's tool calls")
    serve.add_argument("--thinking-start", help="text of the marker that starts the thinking")
    serve.add_argument("--thinking-end", help="text of the marker that ends the thinking")
    serve.add_argument(
        "--reasoning-format",
        choices=[style.value for style in ReasoningFormat],
        help="where responses have the thinking",
    )


def _serve(settings: Settings) -> int:
    return serve(settings) if settings.workers == 1 else serve_workers(settings)


def _settings(options: argparse.Namespace) -> Settings:
    flags = {
        name: value
        for name, value in vars(options).items()
        if value is not None and name not in ("command", "config", "debug")
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
    """Return the rows of a ledger, given by its URL or as a file of JSON lines.

    Raises:
        ValueError: if there is no ledger, or it cannot be read.
    """
    if "://" not in ledger:
        return read_rows(Path(ledger))
    try:
        return ledger_cli.calibration_rows(ledger)
    except (ConfigError, LedgerError) as error:
        raise ValueError(str(error)) from error


def _route(settings: Settings, prompt: str) -> str:
    """Describe the budget that a request with this prompt would get."""
    routed = Router.load(settings.router).classify_conversation(Conversation.of(prompt))
    resolution = resolve(BudgetRequest(), settings, routed.level, ceilings(settings))
    return format_text(resolution, routed, settings.prices_of(resolution.tier))


if __name__ == "__main__":
    raise SystemExit(main())
