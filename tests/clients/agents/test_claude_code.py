"""Claude Code on a scripted engine that uses its tools."""

import json
from pathlib import Path
from typing import Any

from tests.clients.agents.agent_process import assert_plan_is_done, run_agent
from tests.clients.agents.agent_server import TURN_BUDGET, AgentServer, agent_server
from tests.clients.agents.scripted_agent import DONE, PLAN, TASK, THOUGHT

TOOLS = "Bash Edit Read Write"


def environment(server: AgentServer, home: Path) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "ANTHROPIC_MODEL": "scripted",
        "CLAUDE_CONFIG_DIR": str(home / "config"),
    }


async def run(server: AgentServer, home: Path, *options: str) -> str:
    arguments = ["claude", "-p", TASK, "--allowedTools", TOOLS, *options]
    return await run_agent(arguments, home, environment(server, home))


def blocks_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the content blocks of all the model's messages."""
    messages = [event["message"] for event in events if event["type"] == "assistant"]
    return [block for message in messages for block in message["content"]]


def deltas_of(events: list[dict[str, Any]]) -> set[str]:
    """Return the types of all deltas of the streams."""
    streamed = [event["event"] for event in events if event["type"] == "stream_event"]
    return {each["delta"]["type"] for each in streamed if each["type"] == "content_block_delta"}


async def test_a_session_runs_each_step_of_the_plan(home: Path) -> None:
    options = ["--output-format", "stream-json", "--verbose", "--include-partial-messages"]
    async with agent_server(home / "work") as server:
        output = await run(server, home, *options)

    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    blocks = blocks_of(events)
    assert deltas_of(events) == {
        "thinking_delta",
        "signature_delta",
        "input_json_delta",
        "text_delta",
    }
    assert events[-1]["result"] == DONE
    assert events[-1]["num_turns"] == len(PLAN) + 1
    assert sum(block["type"] == "tool_use" for block in blocks) == len(PLAN)
    assert {block["thinking"] for block in blocks if block["type"] == "thinking"} >= {THOUGHT}
    assert_plan_is_done(home)
    assert server.refused == []


async def test_a_turn_thinks_within_its_budget_over_all_its_calls(home: Path) -> None:
    async with agent_server(home / "work") as server:
        answer = await run(server, home)
        first = server.thinking_tokens
        await run(server, home, "--continue")
        second = server.thinking_tokens[len(first) :]

    assert answer.endswith(f"{DONE}\n")
    assert len(first) == len(second) == len(PLAN) + 1
    assert sum(first) == sum(second) == TURN_BUDGET
    assert first[:3] == [len(THOUGHT)] * 3
