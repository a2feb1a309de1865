"""The paths of the server's persistent files."""

import os
from pathlib import Path


def state_folder() -> Path:
    """Return systemd's `$STATE_DIRECTORY`, or else `proctor` in the user's XDG state directory."""
    directory = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if directory:
        return Path(directory)
    parent = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(parent) / "proctor"
