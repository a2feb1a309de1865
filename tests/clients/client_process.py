"""Runs clients in separate processes, usually in the virtual environment of the clients."""

import asyncio
import os
import tempfile
from pathlib import Path

from tests.requirements import require
from tests.waiting import PATIENCE

CLIENTS = Path(__file__).parent
BIN = CLIENTS.parent.parent / ".venv-clients" / "bin"
SECONDS = 3 * PATIENCE
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "NO_PROXY": "127.0.0.1",
}
"""Keeps the clients from network access beyond the servers under test."""


async def run(command: list[str], folder: Path, programs: Path = BIN, **environment: str) -> str:
    """Run a command that must succeed, and return its output.

    Args:
        command: a program and its arguments.
        folder: its working directory.
        programs: the folder of the program; by default that of the clients' environment.
        environment: additional environment variables.
    """
    require((programs / command[0]).exists(), f"{programs.parent.name} (`make test` makes it)")
    with tempfile.TemporaryFile() as out:
        process = await asyncio.create_subprocess_exec(
            programs / command[0],
            *command[1:],
            cwd=folder,
            env={
                "PATH": f"{programs}:{os.defpath}",
                "HOME": str(Path.home()),
                **OFFLINE,
                **environment,
            },
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(SECONDS):
                await process.wait()
        except TimeoutError:
            pass  # its output tells where it hangs
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        out.seek(0)
        output = out.read().decode()
    assert process.returncode == 0, output
    return output
