"""Clients in separate processes and environments: LangChain, LiteLLM, and those for JavaScript.

Their tests are in `python/` and `js/`, and are given the addresses of the servers.
"""

import re
from contextlib import AsyncExitStack

import pytest

from tests.clients.client_process import CLIENTS, run
from tests.clients.scripted_servers import busy_server, loading_server
from tests.engine.gateway import Gateway
from tests.waiting import PATIENCE

PYTHON = CLIENTS / "python"
JS = CLIENTS / "js"


@pytest.mark.parametrize("suite", sorted(path.name for path in PYTHON.glob("test_*.py")))
async def test_python(suite: str, vllm_gateway: Gateway, scripted_url: str) -> None:
    output = await run(
        [
            "python",
            "-m",
            "pytest",
            "--quiet",
            f"--override-ini=faulthandler_timeout={PATIENCE}",
            suite,
        ],
        PYTHON,
        REAL_URL=vllm_gateway.url,
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
