"""Runs clients in processes of their own, mostly in the environment that is made for them."""

import asyncio
import os
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
"""Keeps the clients from looking for anything on the net."""


async def run(command: list[str], folder: Path, programs: Path = BIN, **environment: str) -> str:
    """What a command prints that must succeed.

    Args:
        command: a program and its arguments.
        folder: where it runs.
        programs: where the program is; by itself in the clients' environment.
        environment: variables that it gets besides.
    """
    require((programs / command[0]).exists(), f"{programs.parent.name} (`make test` makes it)")
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
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            printed = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, printed
    return printed
