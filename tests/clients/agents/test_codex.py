"""Codex on a scripted engine that uses its tools, configured as `proctor launch` does."""

import json
from pathlib import Path
from typing import Any

from proctor.server.cli.launch.agents import Target, codex
from tests.clients.agents.agent_process import assert_plan_is_done, run_agent
from tests.clients.agents.agent_server import TURN_BUDGET, AgentServer, agent_server
from tests.clients.agents.scripted_agent import CONTEXT, DONE, PLAN, TASK, THOUGHT

RESPONSES = "/v1/responses"
NOT_SANDBOXED = "--dangerously-bypass-approvals-and-sandbox"
"""Its sandbox needs namespaces, which a container may not allow."""


async def run(server: AgentServer, home: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run `codex exec`, and return its events."""
    target = Target(server.url, "scripted", CONTEXT, None, {"x-session-id": "s-1"})
    invocation = codex(target, {})
    options = ["exec", "--skip-git-repo-check", "--json", NOT_SANDBOXED]
    output = await run_agent(
        ["codex", *invocation.arguments, *options, *arguments],
        home,
        {**invocation.environment, "CODEX_HOME": str(home / "config")},
    )
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def texts_of(events: list[dict[str, Any]], kind: str) -> list[str]:
    """Return the texts of the completed items of a type."""
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item["text"] for item in items if item["type"] == kind]


async def test_a_session_runs_each_step_of_the_plan(home: Path) -> None:
    (home / "config").mkdir()
    async with agent_server(home / "work") as server:
        events = await run(server, home, TASK)

    calls = server.posted(RESPONSES)
    assert texts_of(events, "agent_message")[-1] == DONE
    assert THOUGHT in texts_of(events, "reasoning")
    assert events[-1]["type"] == "turn.completed"
    assert len(calls) == len(PLAN) + 1
    assert {each.headers["x-session-id"] for each in calls} == {"s-1"}
    assert_plan_is_done(home)
    assert server.refused == []


async def test_a_turn_thinks_within_its_budget_over_all_its_calls(home: Path) -> None:
    (home / "config").mkdir()
    async with agent_server(home / "work", default_tier="high") as server:
        await run(server, home, TASK)
        first = server.thinking_tokens
        await run(server, home, "resume", "--last", TASK)
        second = server.thinking_tokens[len(first) :]

    assert len(first) == len(second) == len(PLAN) + 1
    assert sum(first) == sum(second) == TURN_BUDGET
