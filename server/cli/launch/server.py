"""Finds the server that an agent is launched with, or starts it."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from proctor.server.cli.address import url_of
from proctor.server.config.paths import state_folder
from proctor.server.config.settings import Settings

SERVE = (sys.executable, "-m", "proctor.server.cli.main", "serve")
"""The command that starts a server."""

POLL_SECONDS = 0.2
TIMEOUT_SECONDS = 10.0
LOG_LINES = 5
"""The number of lines of the log of a server that has ended to show."""


class LaunchError(Exception):
    """An agent cannot be launched; the message says why, and what to do."""


class ServedModel(NamedTuple):
    """The model of a server.

    Attributes:
        name: its name.
        context_length: its context in tokens.
    """

    name: str
    context_length: int


def configured_url(settings: Settings) -> str:
    """Return the base URL of a server with these settings."""
    return url_of(settings.host, settings.port)


@contextmanager
def running_server(settings: Settings, url: str | None, config: Path | None) -> Iterator[str]:
    """Yield the base URL of a server that is ready; stop it at the end if it was started here.

    Args:
        settings: the settings of the server.
        url: the base URL of the server, or None for the one of the settings, which is started
            if it does not run.
        config: the settings file, or None for the default.

    Raises:
        LaunchError: if there is no server.
    """
    found = url or configured_url(settings)
    if answers(found):
        _wait_until_ready(found)
        yield found
    elif url is not None:
        raise LaunchError(f"No server answers at {url}.")
    else:
        port = settings.port or _free_port()
        command = [*SERVE, "--port", str(port)]
        if config is not None:
            command += ["--config", str(config)]
        log = state_folder() / f"launch-{port}.log"
        found = url_of(settings.host, port)
        text = f"Starting a server for {settings.model_name} at {found}; its log is {log}."
        print(f"proctor: {text}", file=sys.stderr, flush=True)
        with _started(command, found, log):
            yield found


def answers(url: str) -> bool:
    """Return whether a server runs at a URL."""
    try:
        return httpx.get(f"{url}/health", timeout=TIMEOUT_SECONDS).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def _started(command: Sequence[str], url: str, log: Path) -> Iterator[None]:
    """Start a server, and stop it at the end.

    Args:
        command: the command that starts it.
        url: its base URL.
        log: the file for its output.

    Raises:
        LaunchError: if it ends before it is ready.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C is for the agent.
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not _is_ready(url):
            if process.poll() is not None:
                lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise LaunchError("\n".join([f"The server has ended; its log is {log}.", *lines]))
            time.sleep(POLL_SECONDS)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str) -> None:
    """Wait until the engine of a server has loaded.

    Raises:
        LaunchError: if the server ends.
    """
    while not _is_ready(url):
        if not answers(url):
            raise LaunchError(f"The server at {url} has ended.")
        time.sleep(POLL_SECONDS)


def _is_ready(url: str) -> bool:
    """Return whether a server can generate now."""
    try:
        return httpx.get(f"{url}/ready", timeout=TIMEOUT_SECONDS).status_code == 200
    except httpx.HTTPError:
        return False


def served_model(url: str, key: str | None) -> ServedModel:
    """Return the model that a server serves.

    Raises:
        LaunchError: if it is not a Proctor server, or rejects the API key.
    """
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    response = httpx.get(f"{url}/v1/models", headers=headers, timeout=TIMEOUT_SECONDS)
    if response.status_code in (401, 403):
        raise LaunchError(
            f"The server at {url} requires an API key: set PROCTOR_API_KEY to one that it accepts."
        )
    try:
        card = response.json()["data"][0]
        return ServedModel(card["root"], card["max_model_len"])
    except (ValueError, LookupError, TypeError):
        raise LaunchError(f"What listens at {url} is not a Proctor server.") from None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
