"""`proctor launch` with the real agents."""

import os
import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.clients.agents.agent_process import OFFLINE, assert_plan_is_done, program
from tests.clients.agents.agent_server import TURN_BUDGET, AgentServer, agent_server
from tests.clients.agents.scripted_agent import DONE, PLAN, TASK
from tests.clients.client_process import run

ROOT = Path(__file__).resolve().parents[3]
PYTHON = Path(sys.executable)
ARGUMENTS = {
    "claude": ["-p", TASK, "--allowedTools", "Bash Edit Read Write"],
    # Its sandbox needs namespaces, which a container may not allow.
    "codex": ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", TASK],
    "opencode": ["run", TASK],
}
PURSE = TURN_BUDGET // 2


async def launch(server: AgentServer, home: Path, agent: str, *limits: str) -> str:
    """Launch an agent on a server, and return its output."""
    options = ["--server", server.url, "--session", "s-1", *limits]
    return await run(
        [PYTHON.name, "-m", "proctor.server.cli.main", "launch", agent, *options, "--"]
        + ARGUMENTS[agent],
        home / "work",
        PYTHON.parent,
        HOME=str(home),
        PATH=f"{program(agent).parent}:{os.defpath}",
        PYTHONPATH=f"{ROOT}:{ROOT / 'src'}",
        **OFFLINE,
    )


@pytest.mark.parametrize("agent", ARGUMENTS)
async def test_an_agent_works_as_one_session_within_its_purse(agent: str, home: Path) -> None:
    async with agent_server(home / "work", default_tier="high") as server:
        output = await launch(server, home, agent, "--budget-thinking", f"{PURSE}")

    calls = [each for each in server.exchanges if each.body and each.body.get("tools")]
    assert DONE in output
    assert "assumes a context window" not in output  # as Claude Code does of unknown models
    assert_plan_is_done(home)
    assert len(calls) == len(PLAN) + 1
    assert {each.headers["x-session-id"] for each in calls} == {"s-1"}
    assert server.refused == []
    assert sum(server.thinking_tokens) == PURSE
    assert re.search(rf"Session s-1: \d+ requests, {PURSE} of {PURSE} thinking tokens", output)


async def test_money_that_is_spent_ends_the_session(home: Path) -> None:
    async with agent_server(home / "work") as server:
        with pytest.raises(AssertionError) as ended:  # the agent fails
            await launch(server, home, "claude", "--budget-usd", "0.3")
        async with httpx.AsyncClient(base_url=server.url) as http:
            used = (await http.get("/v1/sessions/s-1")).json()["used"]

    assert "API Error: Request rejected (429) · Session limit exceeded" in str(ended.value)
    assert "of 0.3 USD" in str(ended.value)
    assert 0 < used["cost"] <= 0.3
    assert used["requests"] == len(server.thinking_tokens)
    assert {each.status for each in server.refused} == {429}
    assert len(server.refused) <= 2
