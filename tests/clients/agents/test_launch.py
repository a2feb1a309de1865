"""`proctor launch` with the real agents."""

import os
import sys
from pathlib import Path

import pytest

from tests.clients.agents.agent_process import OFFLINE, assert_plan_is_done, program
from tests.clients.agents.agent_server import AgentServer, agent_server
from tests.clients.agents.scripted_agent import DONE, PLAN, TASK
from tests.clients.client_process import run

ROOT = Path(__file__).resolve().parents[3]
PYTHON = Path(sys.executable)
ARGUMENTS = {
    "claude": ["-p", TASK, "--allowedTools", "Bash Edit Read Write"],
    "opencode": ["run", TASK],
}


async def launch(server: AgentServer, home: Path, agent: str) -> str:
    """Launch an agent on a server, and return its output."""
    options = ["--server", server.url, "--session", "s-1", "--budget-thinking", "100000"]
    return await run(
        [PYTHON.name, "-m", "proctor.server.cli", "launch", agent, *options, "--"]
        + ARGUMENTS[agent],
        home / "work",
        PYTHON.parent,
        HOME=str(home),
        PATH=f"{program(agent).parent}:{os.defpath}",
        PYTHONPATH=f"{ROOT}:{ROOT / 'src'}",
        **OFFLINE,
    )


@pytest.mark.parametrize("agent", ARGUMENTS)
async def test_an_agent_works_on_the_server_as_one_session(agent: str, home: Path) -> None:
    async with agent_server(home / "work") as server:
        output = await launch(server, home, agent)

    calls = [each for each in server.exchanges if each.body and each.body.get("tools")]
    assert DONE in output
    assert "assumes a context window" not in output  # as Claude Code does of unknown models
    assert_plan_is_done(home)
    assert len(calls) == len(PLAN) + 1
    assert {each.headers["x-session-id"] for each in calls} == {"s-1"}
    assert {each.headers["x-session-max-thinking-tokens"] for each in calls} == {"100000"}
