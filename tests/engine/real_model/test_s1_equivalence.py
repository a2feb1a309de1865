"""Continuations are those of s1's budget forcing, with an end marker of several tokens.

s1 (arXiv 2501.19393) strips the delimiter, appends "Wait" and resubmits. Within the batch, the
tokens of a rejected marker before its last one stay in the model's context, as in this reference.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from proctor.budget import TokenBudget
from proctor.server.engines.base import Engine, Job, Sampling
from tests.engine.gateway import Gateway
from tests.engine.real_model.client import END, QUESTIONS, START, conversation, token_bytes

pytestmark = pytest.mark.engine

LENGTH = 120


@pytest.mark.parametrize("repetition", [None, 1.1])
def test_greedy_continuations_are_identical_to_s1(
    real_gateway: Gateway, repetition: float | None
) -> None:
    """Also under the repetition penalty, which counts the tokens of the prompt too."""
    sampling = Sampling(max_tokens=LENGTH, temperature=0, repetition_penalty=repetition)
    engine = real_gateway.engine

    async def compare(number: int, question: str) -> bool:
        rendered = await engine.codec.render(conversation(question), thinking=True)
        prompt = (*rendered.ids, *engine.codec.encode(START))
        name = f"s1-{repetition}-{number}"
        ours, was_rejected = await in_engine(engine, name, prompt, sampling)
        assert ours == await resubmitted(engine, name, prompt, sampling)
        return was_rejected

    async def compare_all() -> list[bool]:
        return await asyncio.gather(*(compare(*each) for each in enumerate(QUESTIONS)))

    assert sum(real_gateway.run(compare_all())) >= 2


async def in_engine(
    engine: Engine, name: str, prompt: tuple[int, ...], sampling: Sampling
) -> tuple[bytes, bool]:
    """Return the thinking with one continuation, and whether an attempt to close was rejected."""
    wait = tuple(engine.codec.encode("Wait"))
    job = Job(name, prompt, sampling, TokenBudget(continuations=1, continuation_ids=(wait,)))
    tokens = await generate(engine, job)
    attempts = (await engine.record(job)).attempts
    begun = max(attempts, default=0)
    return text_of(tokens[:begun]) + thinking_text(engine, tokens[begun:]), bool(attempts)


async def resubmitted(
    engine: Engine, name: str, prompt: tuple[int, ...], sampling: Sampling
) -> bytes:
    """Generate up to the delimiter, replace its last token by "Wait", and generate on."""
    # Outside a block, an end of turn is not replaced by an end marker.
    tokens = await generate(engine, Job(f"{name}-0", prompt, sampling, TokenBudget(opened=False)))
    closed = closed_at(engine, tokens)
    if closed is None:
        return text_of(tokens)
    begun = (*tokens[:closed], *engine.codec.encode("Wait"))
    rest = replace(sampling, max_tokens=LENGTH - len(begun))
    tokens = await generate(engine, Job(f"{name}-1", (*prompt, *begun), rest, TokenBudget()))
    return text_of(begun) + thinking_text(engine, tokens)


async def generate(engine: Engine, job: Job) -> list[int]:
    return [token async for delta in engine.generate(job) for token in delta.token_ids]


def closed_at(engine: Engine, tokens: list[int]) -> int | None:
    """Return the position of the token that completes the end marker or ends the turn."""
    for position, token in enumerate(tokens):
        if token in engine.model.markers.eos or END.encode() in text_of(tokens[: position + 1]):
            return position
    return None


def thinking_text(engine: Engine, tokens: list[int]) -> bytes:
    """Return the text before the end marker or the end of the turn."""
    before = [token for token in tokens if token not in engine.model.markers.eos]
    return text_of(before).partition(END.encode())[0]


def text_of(tokens: Sequence[int]) -> bytes:
    return b"".join(map(token_bytes, tokens))
