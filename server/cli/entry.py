"""The entry point of `proctor`: quiet at Ctrl-C, also while all other modules are imported."""

import signal
from importlib import import_module

INTERRUPTED_STATUS = 130
"""The exit status after Ctrl-C, as shells set it."""

MAIN = "proctor.server.cli.main"
"""What is imported only after Ctrl-C is handled; it takes a second."""


def main() -> int:
    """Run the command, and return the exit status."""
    signal.signal(signal.SIGINT, _exit)
    module = import_module(MAIN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status: int = module.main()
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    return status


def _exit(*_: object) -> None:
    raise SystemExit(INTERRUPTED_STATUS)


if __name__ == "__main__":
    raise SystemExit(main())
