"""The commands of the README and of the docs, run as they are written but for the port."""

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
from tests.engine.recording_engine import RecordingEngine
from tests.server.harness import serve_app

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "docs" / "quickstart.md"
SECONDS = 120
PORT = "http://127.0.0.1:8000"


def blocks(page: Path, language: str, about: str) -> list[str]:
    """A page's blocks of code in a language that hold some text."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if about in block]


RECIPES = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{at}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for at, block in enumerate(blocks(page, "sh", "curl http"))
]


class Lent(RecordingEngine):
    """An engine that others still need."""

    async def aclose(self) -> None:
        pass


@pytest.fixture(scope="module")
def url(vllm_gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `make serve` serves, over the engine that is there already."""
    ledger = {"url": f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}"}
    app = create_app(load_settings({"ledger": ledger}), lambda: Lent(vllm_gateway.engine))
    stack = AsyncExitStack()
    url = vllm_gateway.run(stack.enter_async_context(serve_app(app)))
    vllm_gateway.run(app.state.supervisor.loaded())
    yield url
    vllm_gateway.run(stack.aclose())


def printed(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(recipe: str, url: str) -> Any:
    answer = json.loads(printed(["bash", "-c", recipe.replace(PORT, url)]))
    assert "error" not in answer
    return answer


def keys(value: Any) -> Any:
    """The names in a JSON value, without what they stand for; a list has its first element's."""
    if isinstance(value, list):
        return [keys(each) for each in value[:1]]
    return {name: keys(each) for name, each in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_works(recipe: str, url: str) -> None:
    assert run(recipe, url)


def test_the_quickstarts_chat(url: str) -> None:
    (recipe,) = blocks(QUICKSTART, "sh", "/v1/chat/completions")
    (shown,) = blocks(QUICKSTART, "json", '"thinking":')
    (choice,) = run(recipe, url)["choices"]

    assert choice["message"]["content"]
    assert choice["message"]["reasoning_content"]
    assert keys(choice["thinking"]) == keys(json.loads(f"{{{shown}}}")["thinking"])
    assert choice["thinking"]["tokens"] <= choice["thinking"]["max_tokens"] == 64


def test_the_quickstarts_dry_run(url: str) -> None:
    (recipe,) = blocks(QUICKSTART, "sh", "/v1/route")
    (shown,) = [json.loads(block) for block in blocks(QUICKSTART, "json", '"router":')]
    told = run(recipe, url)

    assert keys(told) == keys(shown)
    for name in ("tier", "source", "field", "budget", "prompt_tokens", "cost"):
        assert told[name] == shown[name]
    assert told["router"]["level"] == shown["router"]["level"]


def test_the_quickstarts_python(url: str) -> None:
    (snippet,) = blocks(QUICKSTART, "python", "from openai import")
    lines = printed([sys.executable, "-c", snippet.replace(PORT, url)]).splitlines()

    assert len(lines) > 2
    assert 0 < int(lines[-1]) <= 64
