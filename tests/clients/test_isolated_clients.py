"""Clients in separate processes and environments: for Python, the Agents SDK, and for JavaScript.

Their tests are in `python/`, `agents_sdk/` and `js/`, and are given the addresses of the servers.
"""

import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.clients.client_process import BIN, CLIENTS, run
from tests.clients.scripted_servers import busy_server, loading_server
from tests.engine.gateway import Gateway
from tests.waiting import PATIENCE

PYTHON = CLIENTS / "python"
AGENTS_SDK = CLIENTS / "agents_sdk"
AGENTS_SDK_BIN = BIN.parent.parent / ".venv-agents-sdk" / "bin"
JS = CLIENTS / "js"


@pytest.mark.parametrize("suite", sorted(path.name for path in PYTHON.glob("test_*.py")))
async def test_python(suite: str, vllm_gateway: Gateway, scripted_url: str) -> None:
    await run_pytest(PYTHON, BIN, suite, vllm_gateway, scripted_url)


async def test_agents_sdk(vllm_gateway: Gateway, scripted_url: str) -> None:
    await run_pytest(AGENTS_SDK, AGENTS_SDK_BIN, "test_agents_sdk.py", vllm_gateway, scripted_url)


async def run_pytest(
    folder: Path, programs: Path, suite: str, gateway: Gateway, scripted_url: str
) -> None:
    """Run the tests of a file, which must succeed, with the Python of another environment."""
    output = await run(
        [
            "python",
            "-m",
            "pytest",
            "--quiet",
            f"--override-ini=faulthandler_timeout={PATIENCE}",
            suite,
        ],
        folder,
        programs,
        REAL_URL=gateway.url,
        SCRIPTED_URL=scripted_url,
    )

    assert re.search(r"^\d+ passed", output.splitlines()[-1])


@pytest.mark.parametrize("suite", sorted(path.name for path in JS.glob("*.test.js")))
async def test_javascript(suite: str, vllm_gateway: Gateway, scripted_url: str) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        output = await run(
            ["node", "--test", "--test-reporter=tap", suite],
            JS,
            REAL_URL=vllm_gateway.url,
            SCRIPTED_URL=scripted_url,
            BUSY_URLS=" ".join([await enter(busy_server()) for _ in range(2)]),
            LOADING_URLS=" ".join([await enter(loading_server()) for _ in range(2)]),
        )

    counts = dict(re.findall(r"^# (\w+) (\d+)$", output, re.MULTILINE))
    assert int(counts["pass"]) > 1
    assert counts["tests"] == counts["pass"]
