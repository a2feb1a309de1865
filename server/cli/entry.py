"""The entry point of `proctor`: light, so that Ctrl-C is quiet while the others are imported."""

import signal

INTERRUPTED_STATUS = 130
"""The exit status after Ctrl-C, as shells set it."""


def main() -> int:
    """Run the command, and return the exit status."""
    signal.signal(signal.SIGINT, _exit)
    from proctor.server.cli.main import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _exit(*_: object) -> None:
    raise SystemExit(INTERRUPTED_STATUS)


if __name__ == "__main__":
    raise SystemExit(main())
