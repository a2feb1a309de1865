"""Where a server keeps what it must not lose."""

import os
from pathlib import Path


def state_folder() -> Path:
    """The folder: systemd's `$STATE_DIRECTORY`, or else this user's for Proctor."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    of_user = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(of_user) / "proctor"
