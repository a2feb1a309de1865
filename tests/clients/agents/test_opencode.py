"""opencode on a scripted engine that uses its tools, configured as `proctor launch` does."""

from pathlib import Path

from proctor.server.cli.launch.agents import Target, opencode
from tests.clients.agents.agent_process import assert_plan_is_done, run_agent
from tests.clients.agents.agent_server import TURN_BUDGET, agent_server
from tests.clients.agents.scripted_agent import CONTEXT, DONE, PLAN, TASK, THOUGHT


async def test_a_session_within_the_budget_of_its_turn(home: Path) -> None:
    async with agent_server(home / "work", default_tier="high") as server:
        target = Target(server.url, "scripted", CONTEXT, None, {"x-session-id": "s-1"})
        environment = opencode(target, {}).environment
        output = await run_agent(["opencode", "run", TASK], home, environment)

    calls = [each for each in server.exchanges if each.body and each.body.get("tools")]
    assert DONE in output
    assert_plan_is_done(home)
    assert server.refused == []
    assert {each.headers["x-session-id"] for each in calls} == {"s-1"}
    assert len(calls) == len(PLAN) + 1
    # One more request asks for a title of the session.
    assert sum(server.thinking_tokens) == TURN_BUDGET + len(THOUGHT)
