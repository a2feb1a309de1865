"""The programs in `examples/`, run as they are, against the demo model or a scripted engine."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.clients.apart import BIN, CLIENTS, run
from tests.engine.gateway import Gateway
from tests.requirements import require

EXAMPLES = CLIENTS.parents[1] / "examples"
HERE = Path(sys.executable).parent
NODE_MODULES = CLIENTS / "js" / "node_modules"
LANGUAGES = (".py", ".mjs", ".sh")


@pytest.mark.parametrize(
    ("name", "programs"), [("openai_sdk", HERE), ("streaming", HERE), ("langchain_chat", BIN)]
)
async def test_python(name: str, programs: Path, vllm_gateway: Gateway) -> None:
    environment = {"OPENAI_BASE_URL": f"{vllm_gateway.url}/v1"}
    printed = await run(["python", f"{name}.py"], EXAMPLES, programs, **environment)

    assert "The answer is" in printed
    assert 0 < int(printed.split()[-1]) <= 64


async def test_tools(scripted: str) -> None:
    environment = {"OPENAI_BASE_URL": f"{scripted}/v1", "MODEL": "scripted"}
    printed = await run(["python", "tool_calls.py"], EXAMPLES, HERE, **environment)

    called, answer = printed.splitlines()
    assert called.startswith("get_weather(")
    assert called.endswith("= 21 degrees in Paris")
    assert answer == "answer: It is 21 degrees."


async def test_javascript(vllm_gateway: Gateway, tmp_path: Path) -> None:
    require(NODE_MODULES.exists(), f"{NODE_MODULES.name} (`make test` makes it)")
    # Node looks for packages beside the file that imports them.
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    name = shutil.copy(EXAMPLES / "vercel_ai.mjs", tmp_path)
    printed = await run(["node", name], tmp_path, OPENAI_BASE_URL=f"{vllm_gateway.url}/v1")

    assert "The answer is" in printed
    assert 0 < int(printed.split()[-1]) <= 64


async def test_curl(vllm_gateway: Gateway) -> None:
    environment = {"OPENAI_BASE_URL": f"{vllm_gateway.url}/v1"}
    printed = await run(["bash", "curl.sh"], EXAMPLES, Path("/bin"), **environment)

    assert '"source":' in printed
    assert '"finish_reason":"stop"' in printed
    assert "event: reasoning" in printed
    assert "event: answer" in printed
    assert printed.rstrip().endswith("data: [DONE]")


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in LANGUAGES]

    assert names
    assert not [name for name in names if f"({name})" not in listed]
