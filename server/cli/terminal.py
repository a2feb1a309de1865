"""What `proctor serve` prints, and the signals that it handles."""

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from proctor.server.cli.address import url_of
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings

PROGRESS_SECONDS = 10
"""The interval at which the progress of loading is shown."""

CONFIG_ERROR_STATUS = 2
"""The exit status if a setting is invalid."""


class Terminal:
    """Shows the start of a server to its operator, and passes on the signals that end it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address = ""
        self._started = time.monotonic()

    @contextmanager
    def attach(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` in the running event loop at each SIGTERM and SIGINT.

        Both are ignored afterwards, when the shutdown is under way.
        """
        loop = asyncio.get_running_loop()
        # The handlers of the event loop would be removed with it, before the engine has ended.
        on_signals(lambda *_: loop.call_soon_threadsafe(stop))
        try:
            yield
        finally:
            on_signals(signal.SIG_IGN)

    def listening(self, port: int) -> None:
        settings = self._settings
        self._address = url_of(settings.host, port)
        self._started = time.monotonic()
        workers = "" if settings.workers == 1 else f" in {settings.workers} workers"
        text = f"Listening on {self._address}; loading {settings.model_name}{workers} ..."
        print(text, flush=True)

    def receiving(self) -> None:
        """Show nothing: connections are accepted where they are served."""

    def loading(self) -> None:
        print(f"  still loading, {self._seconds():.0f} s", flush=True)

    def ready(self) -> None:
        example = _example(self._address, self._settings)
        print(f"Ready after {self._seconds():.0f} s. Try:\n\n{example}\n", flush=True)

    def failed(self) -> None:
        print(failed_to_load(self._settings.model_name), file=sys.stderr)

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def on_signals(handler: Callable[..., object] | signal.Handlers) -> None:
    """Handle SIGTERM and SIGINT."""
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def debug() -> None:
    """Show errors with their tracebacks, wherever they are logged or reported."""
    logging.getLogger("proctor").setLevel(logging.DEBUG)


def is_debugging() -> bool:
    return logging.getLogger("proctor").isEnabledFor(logging.DEBUG)


def exit_successfully(*_: object) -> NoReturn:
    """Handle a signal by exiting with 0, before there is anything to shut down."""
    raise SystemExit(0)


def failed_to_load(name: str) -> str:
    """Return the message about a model that failed to load, for a reason that the log gives."""
    return (
        f"proctor: {name} failed to load: check --model and --engine; `proctor --debug serve` "
        "shows the traceback"
    )


def print_config_error(error: ConfigError) -> None:
    print(f"proctor: {error}".replace("\n", "\nproctor: "), file=sys.stderr)


def _example(address: str, settings: Settings) -> str:
    body = {
        "model": settings.model_name,
        "messages": [
            {
                "role": "user",
                "content": "Start with 7, add 5, times 3. What are the last two digits?",
            }
        ],
        "max_thinking_tokens": 256,
    }
    return (
        f"  curl {address}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f"    -d '{json.dumps(body)}'"
    )
