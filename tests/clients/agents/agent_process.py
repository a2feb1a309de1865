"""Runs coding agents, unchanged, apart from the user's settings and from the network."""

import platform
from collections.abc import Mapping
from pathlib import Path

from tests.clients.client_process import run
from tests.requirements import require

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"
PROGRAMS = {
    "claude": "@anthropic-ai/claude-code-{system}-{cpu}/claude",
    "codex": "@openai/codex-{system}-{cpu}/vendor/*/bin/codex",
    "opencode": "opencode-{system}-{cpu}-baseline/bin/opencode",
}
"""The programs of the agents, in their packages for each platform. Of opencode, only such a package
is installed, for Linux: the one that selects it would run a script."""

CPUS = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}
OFFLINE = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}
"""Keeps the agents from network access beyond the server under test."""


def program(name: str) -> Path:
    """Return the path of an agent's program."""
    pattern = PROGRAMS[name].format(
        system=platform.system().lower(), cpu=CPUS.get(platform.machine(), "")
    )
    found = sorted(MODULES.glob(pattern))
    require(found, f"{name} (`make test` installs it)")
    return found[0]


async def run_agent(arguments: list[str], home: Path, environment: Mapping[str, str]) -> str:
    """Run an agent that must succeed, and return its output.

    Args:
        arguments: its name and its arguments.
        home: its home directory; it works in `work` there.
        environment: additional environment variables.
    """
    name, *rest = arguments
    path = program(name)
    return await run(
        [path.name, *rest],
        home / "work",
        path.parent,
        HOME=str(home),
        **OFFLINE,
        **environment,
    )


def assert_plan_is_done(home: Path) -> None:
    """Check the files that the steps of the plan leave."""
    files = {path.name: path.read_text() for path in (home / "work").iterdir() if path.is_file()}
    assert files["one.txt"] == "20\n"
    assert files["total.txt"] == "42\n"
