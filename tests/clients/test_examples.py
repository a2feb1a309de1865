"""The unmodified programs in `examples/`, against the demo model or a scripted engine."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.clients.client_process import BIN, CLIENTS, run
from tests.engine.gateway import Gateway
from tests.requirements import require

EXAMPLES = CLIENTS.parents[1] / "examples"
SERVER_BIN = Path(sys.executable).parent
NODE_MODULES = CLIENTS / "js" / "node_modules"
LANGUAGES = (".py", ".mjs", ".sh")


@pytest.mark.parametrize(
    ("name", "programs", "budget"),
    [
        ("openai_sdk", SERVER_BIN, 256),
        ("streaming", SERVER_BIN, 64),
        ("langchain_chat", BIN, 64),
    ],
)
async def test_python(name: str, programs: Path, budget: int, vllm_gateway: Gateway) -> None:
    environment = {"OPENAI_BASE_URL": f"{vllm_gateway.url}/v1"}
    output = await run(["python", f"{name}.py"], EXAMPLES, programs, **environment)

    assert "The answer is" in output
    assert 0 < int(output.split()[-1]) <= budget


async def test_tools(scripted_url: str) -> None:
    environment = {"OPENAI_BASE_URL": f"{scripted_url}/v1", "MODEL": "scripted"}
    output = await run(["python", "tool_calls.py"], EXAMPLES, SERVER_BIN, **environment)

    call, answer = output.splitlines()
    assert call.startswith("get_weather(")
    assert call.endswith("= 21 degrees in Paris")
    assert answer == "answer: It is 21 degrees."


async def test_javascript(vllm_gateway: Gateway, tmp_path: Path) -> None:
    require(NODE_MODULES.exists(), f"{NODE_MODULES.name} (`make test` makes it)")
    # Node searches for packages next to the file that imports them.
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    script = shutil.copy(EXAMPLES / "vercel_ai.mjs", tmp_path)
    output = await run(["node", str(script)], tmp_path, OPENAI_BASE_URL=f"{vllm_gateway.url}/v1")

    assert "The answer is" in output
    assert 0 < int(output.split()[-1]) <= 64


async def test_curl(vllm_gateway: Gateway) -> None:
    environment = {"OPENAI_BASE_URL": f"{vllm_gateway.url}/v1"}
    output = await run(["bash", "curl.sh"], EXAMPLES, Path("/bin"), **environment)

    assert '"source":' in output
    assert '"finish_reason":"stop"' in output
    assert "event: reasoning" in output
    assert "event: answer" in output
    assert output.rstrip().endswith("data: [DONE]")


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in LANGUAGES]

    assert names
    assert not [name for name in names if f"({name})" not in listed]
