"""Parses and runs `proctor launch`."""

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import httpx

from proctor.server.cli.launch.agents import AGENTS, KEY_VARIABLE, Agent, Target
from proctor.server.cli.launch.foreground import (
    environment_with,
    exit_on_signals,
    run_in_foreground,
)
from proctor.server.cli.launch.server import (
    LaunchError,
    answers,
    configured_url,
    running_server,
    served_model,
)
from proctor.server.cli.launch.session import LaunchedSession, new_session_id
from proctor.server.cli.launch.summary import fetch_session, print_summary
from proctor.server.config.limits import SESSION_ID
from proctor.server.config.settings import Settings, load_settings

SEPARATOR = "--"
AGENT_CONTEXT = 32_000
"""The least context in which an agent can work, in tokens."""

NOT_FOUND_STATUS = 127
"""The exit status of a shell if a program is not found."""


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the arguments to a parser, except the agent's own.

    Args:
        parser: the parser of the command.
        config: the help of `--config`.
    """
    parser.usage = "proctor launch {claude,codex,opencode} [options] [-- arguments of the agent]"
    parser.add_argument("agent", choices=AGENTS, help="agent to run")
    parser.add_argument(
        "--server",
        type=_server_url,
        metavar="URL",
        help="base URL of the server (default: the configured address, started if idle)",
    )
    parser.add_argument(
        "--session", type=_session_id, metavar="ID", help="ID of the session (default: a new one)"
    )
    parser.add_argument(
        "--budget-thinking",
        type=_tokens,
        metavar="TOKENS",
        help="maximum number of thinking tokens of the session",
    )
    parser.add_argument(
        "--budget-usd",
        type=_amount,
        metavar="AMOUNT",
        help="maximum cost of the session, in the currency of the server's prices",
    )
    parser.add_argument(
        "--print",
        action="store_true",
        dest="printed",
        help="print the agent's environment and command instead of running it",
    )
    parser.add_argument("--config", type=Path, help=config)


def split_arguments(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the command's own arguments, and those of the agent, which follow the first `--`."""
    if SEPARATOR not in arguments:
        return arguments, ()
    index = arguments.index(SEPARATOR)
    return arguments[:index], arguments[index + 1 :]


def run(options: argparse.Namespace, agent_arguments: Sequence[str]) -> int:
    """Launch an agent, and return its exit status.

    Args:
        options: the command's own arguments.
        agent_arguments: those of the agent.

    Raises:
        ConfigError: if a setting is invalid.
    """
    agent = AGENTS[options.agent]
    session = LaunchedSession(
        options.session or new_session_id(options.agent),
        options.budget_thinking,
        options.budget_usd,
    )
    settings = load_settings({}, options.config)
    try:
        if options.printed:
            _print(agent, _printed_target(settings, options, session), agent_arguments)
            return 0
        if shutil.which(agent.program) is None:
            print(
                f"proctor: {agent.title} is not installed: there is no '{agent.program}' on the "
                f"PATH. Install it with: {agent.install}",
                file=sys.stderr,
            )
            return NOT_FOUND_STATUS
        with exit_on_signals(), running_server(settings, options.server, options.config) as url:
            target = _target(url, session)
            _warn_of_small_context(agent, target)
            status = _run_agent(agent, target, agent_arguments)
            print_summary(fetch_session(url, target.key, session.id), session)
            return status
    except (LaunchError, OSError, httpx.HTTPError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1


def _target(url: str, session: LaunchedSession) -> Target:
    key = os.environ.get(KEY_VARIABLE)
    model = served_model(url, key)
    return Target(url, model.name, model.context_length, key, session.headers)


def _printed_target(
    settings: Settings, options: argparse.Namespace, session: LaunchedSession
) -> Target:
    """Return the server to print: without one that runs, as far as the settings tell.

    Raises:
        LaunchError: if what runs there is not a Proctor server, or rejects the API key.
    """
    url = options.server or configured_url(settings)
    if answers(url):
        return _target(url, session)
    key = os.environ.get(KEY_VARIABLE)
    return Target(url, settings.model_name, None, key, session.headers)


def _warn_of_small_context(agent: Agent, target: Target) -> None:
    length = target.context_length
    if length is not None and length < AGENT_CONTEXT:
        print(
            f"proctor: {target.model} has a context of {length:,} tokens. The instructions of "
            f"{agent.title} alone take thousands: serve a model with {AGENT_CONTEXT:,} or more.",
            file=sys.stderr,
        )


def _run_agent(agent: Agent, target: Target, arguments: Sequence[str]) -> int:
    invocation = agent.invoke(target, os.environ)
    environment = environment_with(os.environ, invocation.environment, invocation.unset)
    return run_in_foreground([agent.program, *invocation.arguments, *arguments], environment)


def _print(agent: Agent, target: Target, arguments: Sequence[str]) -> None:
    invocation = agent.invoke(target, os.environ)
    for name in invocation.unset:
        print(f"unset {name}")
    for name, value in invocation.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    print(shlex.join([agent.program, *invocation.arguments, *arguments]))


def _server_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"'{text}' must begin with http:// or https://")
    return text.rstrip("/")


def _session_id(text: str) -> str:
    if re.fullmatch(SESSION_ID, text) is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' must have at most 128 letters, digits and '._:@=+-', and begin with a "
            "letter or digit"
        )
    return text


def _tokens(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of tokens")
    return int(text)


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not (amount.is_finite() and amount > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive amount")
    return amount
