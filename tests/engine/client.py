"""Chat requests to the real engine, with random budgets, and checks of the responses."""

import asyncio
import json
from random import Random
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from proctor.budget.budgets import NUDGE_TEXT, OnLoop
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.waiting import PATIENCE

CHAT = "/v1/chat/completions"


def body(gateway: Gateway, text: str, **fields: Any) -> dict[str, Any]:
    return {
        "model": gateway.engine.model.name,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }


async def ask(http: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    """Send a chat request, and return the response; a stream is merged into the same shape."""
    if not request.get("stream"):
        response = await http.post(CHAT, json=request)
        assert response.status_code == 200, response.text
        whole: dict[str, Any] = response.json()
        return whole
    streamed = {**request, "stream_options": {"include_usage": True}}
    texts = {"reasoning_content": "", "content": ""}
    async with http.stream("POST", CHAT, json=streamed) as response:
        chunks = [
            json.loads(line[6:])
            async for line in response.aiter_lines()
            if line.startswith("data: {")
        ]
    final = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        for name, text in choice["delta"].items():
            if name in texts:
                texts[name] += text or ""
        if choice["finish_reason"]:
            final = choice
    return {
        "id": chunks[0]["id"],
        "choices": [{**final, "message": texts}],
        "usage": chunks[-1]["usage"],
    }


def random_request(gateway: Gateway, rng: Random, most: int = 200) -> dict[str, Any]:
    """Return a request with a random budget, of at most `most` tokens if it is limited."""
    maximum = rng.choice([0, rng.randint(1, 12), rng.randint(1, most), -1])
    ceiling = most if maximum == -1 else maximum
    request = body(
        gateway,
        chain(rng, rng.randint(1, 10)),
        max_thinking_tokens=maximum,
        min_thinking_tokens=rng.choice([0, rng.randint(0, ceiling), ceiling]),
        max_tokens=600,
        stream=rng.random() < 0.5,
        temperature=rng.choice([0, 0.6, 1.0, 1.7]),
        top_p=rng.choice([1.0, 0.9]),
    )
    if rng.random() < 0.3:
        request["seed"] = rng.randint(-(2**63), 2**63 - 1)
    thinking: dict[str, Any] = {
        "landing": rng.choice(["sentence", "hard"]),
        "on_loop": rng.choice(["close", "nudge", "off"]),
    }
    if maximum and rng.random() < 0.4:
        thinking["continuations"] = rng.randint(1, 4)
    if rng.random() < 0.4:
        thinking["continuation_text"] = rng.choice(["Wait", ["Hmm", "Wait, check again."], "等等"])
    if rng.random() < 0.4:
        thinking["wrap_up_text"] = rng.choice(["\nFinal Answer:", "…", "\n"])
    return {**request, "thinking": thinking}


def random_early_exit(rng: Random) -> dict[str, Any]:
    """Return options of `thinking.early_exit` by which many a thinking ends."""
    method = rng.choice(["answer", "entropy", "confidence"])
    options: dict[str, Any] = {
        "method": method,
        "every": rng.randint(4, 24),
        "patience": rng.randint(2, 3),
    }
    if method == "entropy":
        options |= {"opening": "The answer is ", "threshold": rng.choice([0.05, 0.5])}
    elif method == "confidence":
        options |= rng.choice(
            [{"threshold": 16.0}, {"floor": 16.0}, {"threshold": 17.0, "floor": 15.8}]
        )
    else:
        options["answer"] = rng.choice(["number", "text"])
    return options


def assert_budget_kept(
    gateway: Gateway, request: dict[str, Any], answer: dict[str, Any], count: int | None = None
) -> None:
    """Compare the budget and the response with the thinking tokens, counted by their ids.

    Args:
        gateway: the gateway that was asked.
        request: the request.
        answer: its response.
        count: the number of thinking tokens; by default it is counted for the demo model, whose
            markers have one token each, and which always answers if it is not sampled.
    """
    (choice,) = answer["choices"]
    name, num_blocks = f"{answer['id']}-0", 1
    if count is None:
        blocks = gateway.engine.thinking_blocks(name)
        count, num_blocks = sum(map(len, blocks)), len(blocks)
        assert choice["message"]["content"] or request["temperature"]
    account = gateway.engine.outcome(name)
    thinking = choice["thinking"]
    counts = thinking["tokens"], account.tokens, count
    assert len({*counts}) == 1, f"{counts}, {account}, {request}, {answer}"
    assert thinking["continuations"] == account.continuations
    assert thinking["end_reason"] == account.end_reason
    probes = gateway.engine.probe_tokens(name)
    assert thinking["probe_tokens"] == probes
    usage = answer["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == count + probes
    generated = len(gateway.engine.recordings[name].tokens) + probes
    assert usage["completion_tokens"] == generated
    assert generated <= request.get("max_tokens", generated)
    markers = gateway.engine.model.markers
    opened = gateway.engine.recordings[name].job.budget.opened
    others = num_blocks * len(markers.end) + (0 if opened else len(markers.start))
    assert_spans_marked(request, choice, others)
    cap = request["max_thinking_tokens"]
    assert cap == -1 or count + probes <= cap
    assert thinking["loops"] == sum(account.loops.values())
    if count < request["min_thinking_tokens"]:
        assert thinking["end_reason"] == "loop"
        assert account.loops[OnLoop.CLOSE]


def assert_spans_marked(request: dict[str, Any], choice: dict[str, Any], others: int) -> None:
    """Check that each forced span covers a forced text, or a prefix that fitted the budget.

    At most `others` more tokens are forced, those of markers.
    """
    options = request["thinking"]
    continuations = options.get("continuation_text", "Wait")
    texts = {
        "continuation": [*([continuations] if isinstance(continuations, str) else continuations)],
        "wrap_up": [options.get("wrap_up_text", "")],
    }
    if options["on_loop"] == "nudge":
        texts["continuation"].append(NUDGE_TEXT)
    spans = choice["thinking"]["forced_spans"]
    for span in spans:
        marked = choice["message"]["reasoning_content"][span["start"] : span["end"]]
        # It may follow the bytes of a character that the model had not finished.
        marked = marked.lstrip("\N{REPLACEMENT CHARACTER}")
        assert any(text.startswith(marked) for text in texts[span["kind"]]), marked
    forced = choice["thinking"]["forced_tokens"]
    assert 0 <= forced - sum(span["tokens"] for span in spans) <= others


async def metric(http: httpx.AsyncClient, name: str) -> float:
    """Return the sum of a metric's samples."""
    families = text_string_to_metric_families((await http.get("/metrics")).text)
    samples = [sample for family in families for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name)


async def until_idle(http: httpx.AsyncClient) -> None:
    """Wait until neither the gateway nor vLLM has running requests."""
    async with asyncio.timeout(PATIENCE):
        while True:
            running = await metric(http, "vllm:num_requests_running")
            if not running + await metric(http, "proctor_in_flight"):
                return
            await asyncio.sleep(0.02)
