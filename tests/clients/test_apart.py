"""Clients in processes and environments of their own: LangChain, LiteLLM, and those for JavaScript.

Their tests are in `python/` and `js/`, and know the servers by address alone.
"""

import re
from contextlib import AsyncExitStack

import pytest

from tests.clients.apart import CLIENTS, run
from tests.clients.scripted import busy, loading
from tests.engine.gateway import Gateway

PYTHON = CLIENTS / "python"
JS = CLIENTS / "js"


@pytest.mark.parametrize("suite", sorted(path.name for path in PYTHON.glob("test_*.py")))
async def test_python(suite: str, vllm_gateway: Gateway, scripted: str) -> None:
    printed = await run(
        ["python", "-m", "pytest", "--quiet", suite],
        PYTHON,
        REAL_URL=vllm_gateway.url,
        SCRIPTED_URL=scripted,
    )

    assert re.search(r"^\d+ passed", printed.splitlines()[-1])


@pytest.mark.parametrize("suite", sorted(path.name for path in JS.glob("*.test.js")))
async def test_javascript(suite: str, vllm_gateway: Gateway, scripted: str) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        printed = await run(
            ["node", "--test", "--test-reporter=tap", suite],
            JS,
            REAL_URL=vllm_gateway.url,
            SCRIPTED_URL=scripted,
            BUSY_URLS=" ".join([await enter(busy()) for _ in range(2)]),
            LOADING_URLS=" ".join([await enter(loading()) for _ in range(2)]),
        )

    told = dict(re.findall(r"^# (\w+) (\d+)$", printed, re.MULTILINE))
    assert int(told["pass"]) > 1
    assert told["tests"] == told["pass"]
