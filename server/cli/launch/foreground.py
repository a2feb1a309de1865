"""Runs a program in the foreground, with the terminal."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

SIGNAL_STATUS = 128
"""The exit status of a program that a signal has ended, less the signal's number."""


def run_in_foreground(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program, and return its exit status as a shell does.

    The terminal sends its signals, such as that of Ctrl-C, to the program too, which decides what
    they mean. Others are passed on.

    Raises:
        OSError: if the program cannot be run.
    """
    # A function rather than SIG_IGN, which the program would inherit.
    with handling((signal.SIGINT, signal.SIGQUIT), lambda *_: None):
        process = subprocess.Popen(command, env=environment)  # noqa: S603
        with handling(
            (signal.SIGTERM, signal.SIGHUP), lambda number, _: process.send_signal(number)
        ):
            status = process.wait()
    return status if status >= 0 else SIGNAL_STATUS - status


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Exit at a signal, so that what was started is ended."""

    def end(number: int, _: Any) -> None:
        raise SystemExit(SIGNAL_STATUS + number)

    with handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), end):
        yield


@contextmanager
def handling(
    signals: Sequence[signal.Signals], handler: Callable[[int, Any], object]
) -> Iterator[None]:
    """Handle signals, and restore their handlers at the end."""
    previous = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


def environment_with(
    environment: Mapping[str, str], additions: Mapping[str, str], unset: Sequence[str]
) -> dict[str, str]:
    """Return an environment with variables added and others removed."""
    kept = {name: value for name, value in environment.items() if name not in unset}
    return {**kept, **additions}
