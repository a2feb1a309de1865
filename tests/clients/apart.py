"""Runs clients in the environment that `make test` makes for them."""

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


async def run(command: list[str], folder: Path, **environment: str) -> str:
    """What a command prints that must succeed; its program is of the clients' environment."""
    require((BIN / command[0]).exists(), f"{BIN.parent.name} (`make test` makes it)")
    process = await asyncio.create_subprocess_exec(
        BIN / command[0],
        *command[1:],
        cwd=folder,
        env={"PATH": f"{BIN}:{os.defpath}", "HOME": str(Path.home()), **OFFLINE, **environment},
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
