"""Chat requests of several chains for one answer, and checks of their responses."""

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.engine.client import body
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain


def random_chains(
    gateway: Gateway, rng: Random, methods: Sequence[str], **fields: Any
) -> dict[str, Any]:
    """Return a request with a random number of chains and a random budget."""
    chains = rng.randint(2, 6)
    maximum = rng.choice([0, rng.randint(chains, 20 * chains), rng.randint(100, 400)])
    options = {"chains": chains, "answer": "number", "method": rng.choice(methods)}
    request = {
        "max_thinking_tokens": maximum,
        "min_thinking_tokens": rng.choice([0, 0, maximum // chains]),
        "max_tokens": maximum + 60 * chains,
        "temperature": 0.3,
        "stream": rng.random() < 0.5,
        "thinking": {"parallel": options},
    }
    return body(gateway, chain(rng, rng.randint(2, 9)), **{**request, **fields})


def assert_total_kept(gateway: Gateway, request: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Check the tokens of all chains by counting ids, and return whether one exceeds its share."""
    engine = gateway.engine
    chains, maximum = request["thinking"]["parallel"]["chains"], request["max_thinking_tokens"]
    jobs = [f"{answer['id']}-{index}" for index in range(chains)]
    thinking = [len(engine.thinking_ids(job)) for job in jobs]
    # What the engine generates after a chain has been cut is neither sent nor counted.
    longest = request["max_tokens"] // chains - -(-maximum // chains)
    generated = sum(
        min(len(engine.recordings[job].tokens), tokens + longest)
        for job, tokens in zip(jobs, thinking, strict=True)
    )
    (choice,), usage = answer["choices"], answer["usage"]
    assert choice["thinking"]["votes"]["tokens"] == sum(thinking) <= maximum
    assert usage["completion_tokens_details"]["reasoning_tokens"] == sum(thinking)
    assert usage["completion_tokens"] == generated <= request["max_tokens"]
    assert usage["prompt_tokens"] == len(engine.recordings[jobs[0]].job.prompt_ids)
    assert choice["thinking"]["tokens"] in thinking
    assert [engine.outcome(job).tokens for job in jobs] == thinking
    return any(tokens > maximum // chains for tokens in thinking)
