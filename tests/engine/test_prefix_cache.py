"""An agent's calls find what they share with the earlier ones in the engine's prefix cache."""

from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.engine.gateway import Gateway

CALLS = 12
TOOLS = [
    {
        "name": "calculate",
        "description": "Calculate the value of an expression.",
        "input_schema": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    }
]
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}


def turn() -> list[dict[str, Any]]:
    """Return the messages of a turn with `CALLS` tool calls, as an agent records them."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "so 3 +4"}]
    for call in range(CALLS):
        identifier = f"call-{call}"
        thinking = {"type": "thinking", "thinking": f"a:{call}", "signature": f"s{call}"}
        use = {
            "type": "tool_use",
            "id": identifier,
            "name": "calculate",
            "input": {"expression": f"{call} + 4"},
        }
        result = {"type": "tool_result", "tool_use_id": identifier, "content": f"{call + 4}"}
        messages += [
            {"role": "assistant", "content": [thinking, use]},
            {"role": "user", "content": [result]},
        ]
    return messages


def request(messages: list[dict[str, Any]], call: int) -> dict[str, Any]:
    """Return a call of Claude Code: a header and the marks of its cache change with each."""
    *earlier, last = messages
    if isinstance(last["content"], list):
        last = {**last, "content": [{**last["content"][0], **EPHEMERAL}]}
    return {
        "model": "proctor-demo",
        "max_tokens": 4,
        "system": [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2; cch={call:05x};"},
            {"type": "text", "text": "You are an agent.", **EPHEMERAL},
        ],
        "messages": [*earlier, last],
        "tools": TOOLS,
        "thinking": {"type": "enabled", "budget_tokens": 4},
        "metadata": {"user_id": f"user_{call}"},
    }


async def samples(http: httpx.AsyncClient, name: str, server: str = "") -> list[Sample]:
    """Return the samples of a metric of a server, by default the gateway."""
    families = text_string_to_metric_families((await http.get(f"{server}/metrics")).text)
    return [sample for family in families for sample in family.samples if sample.name == name]


async def cached_tokens(http: httpx.AsyncClient) -> float:
    """Return the number of cached prompt tokens in the metrics."""
    name = "proctor_cached_prompt_tokens_total"
    return sum(sample.value for sample in await samples(http, name))


async def test_a_turn_of_tool_calls_reads_its_history_from_the_cache(vllm_gateway: Gateway) -> None:
    messages = turn()
    usages: list[dict[str, int]] = []
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=None) as http:
        (cache,) = await samples(http, "vllm:cache_config_info", vllm_gateway.vllm_url)
        before = await cached_tokens(http)
        for call in range(CALLS + 1):
            body = request(messages[: 2 * call + 1], call)
            response = await http.post("/v1/messages", json=body)
            usages.append(response.raise_for_status().json()["usage"])
        counted = await cached_tokens(http) - before

    prompts = [usage["input_tokens"] + usage["cache_read_input_tokens"] for usage in usages]
    cached = [usage["cache_read_input_tokens"] for usage in usages]
    block = int(cache.labels["block_size"])  # only whole blocks are cached
    cacheable = [prompt // block * block for prompt in prompts[:-1]]
    assert len(cacheable) == CALLS
    assert sum(cached[1:]) >= 0.95 * sum(cacheable)
    assert counted == sum(cached)
