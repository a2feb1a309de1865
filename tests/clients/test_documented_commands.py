"""The commands in the README and the documentation, run with only the port changed."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proctor.server.app import create_app
from proctor.server.config.settings import load_settings
from tests.engine.gateway import Gateway
from tests.engine.recording_engine import KeptOpen
from tests.server.harness import serve_app

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "docs" / "quickstart.md"
SECONDS = 120
PORT = "http://127.0.0.1:8000"


def blocks(page: Path, language: str, text: str) -> list[str]:
    """Return the code blocks of a page in a language that contain a text."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if text in block]


COMMANDS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{at}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for at, block in enumerate(blocks(page, "sh", "curl http"))
]


@pytest.fixture(scope="module")
def url(vllm_gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with the settings of `make serve`, over the shared engine."""
    ledger = {"url": f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}"}
    app = create_app(load_settings({"ledger": ledger}), lambda: KeptOpen(vllm_gateway.engine))
    stack = AsyncExitStack()
    url = vllm_gateway.run(stack.enter_async_context(serve_app(app)))
    vllm_gateway.run(app.state.supervisor.loaded())
    yield url
    vllm_gateway.run(stack.aclose())


def output_of(command: list[str]) -> str:
    completed = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def run(command: str, url: str) -> Any:
    answer = json.loads(output_of(["bash", "-c", command.replace(PORT, url)]))
    assert answer.get("error") is None
    return answer


def keys(value: Any) -> Any:
    """Return the names in a JSON value without the values; of a list, those of its first item."""
    if isinstance(value, list):
        return [keys(each) for each in value[:1]]
    return {name: keys(each) for name, each in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_curl_command_works(command: str, url: str) -> None:
    assert run(command, url)


def test_the_quickstarts_chat(url: str) -> None:
    (command,) = blocks(QUICKSTART, "sh", "/v1/chat/completions")
    (example,) = blocks(QUICKSTART, "json", '"thinking":')
    (choice,) = run(command, url)["choices"]

    assert choice["message"]["content"]
    assert choice["message"]["reasoning_content"]
    assert keys(choice["thinking"]) == keys(json.loads(f"{{{example}}}")["thinking"])
    assert choice["thinking"]["tokens"] <= choice["thinking"]["max_tokens"] == 64


def test_the_quickstarts_dry_run(url: str) -> None:
    (command,) = blocks(QUICKSTART, "sh", "/v1/route")
    (example,) = [json.loads(block) for block in blocks(QUICKSTART, "json", '"router":')]
    response = run(command, url)

    assert keys(response) == keys(example)
    for name in ("tier", "source", "field", "budget", "prompt_tokens", "cost"):
        assert response[name] == example[name]
    assert response["router"]["level"] == example["router"]["level"]


def test_the_quickstarts_python(url: str) -> None:
    (snippet,) = blocks(QUICKSTART, "python", "from openai import")
    lines = output_of([sys.executable, "-c", snippet.replace(PORT, url)]).splitlines()

    assert len(lines) > 2
    assert 0 < int(lines[-1]) <= 64
