"""`proctor train` in a process that finds TRL."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from tests.requirements import require

TRAINER = Path(sys.prefix) / "training"
"""Made by `make .venv/training/.made`, apart from what serves."""

RUN = """\
import argparse, sys
from proctor.training import cli
parser = argparse.ArgumentParser()
cli.add_arguments(parser)
sys.exit(cli.execute(parser.parse_args()))
"""


def train(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that finds TRL."""
    require(TRAINER.exists() or importlib.util.find_spec("trl"), "TRL")
    paths = [".", "src", str(TRAINER), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", RUN, "run", *(str(each) for each in arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
