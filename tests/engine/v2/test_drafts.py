"""Budgets hold where a draft runs across their edges, and drafts do not change distributions."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.engine.client import body
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.engine.v2.drafts import ask_both
from tests.engine.v2.law import assert_sampled_law

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("draft_gateway", ["same-7", "shorter-3"], indirect=True)
async def test_the_edges_of_a_budget_lie_anywhere_within_a_draft(
    draft_gateway: Gateway, vllm_gateway: Gateway
) -> None:
    """Minimum, maximum, landing and continuations, with edges at every place of a draft."""
    edges = range(20, 28)
    requests = [request for edge in edges for request in requests_with_edge(draft_gateway, edge)]
    ours, theirs = await ask_both(draft_gateway, vllm_gateway, requests)
    for one, other in zip(ours, theirs, strict=True):
        assert one["choices"] == other["choices"]
    exact = ours[::4]
    assert [answer["choices"][0]["thinking"]["tokens"] for answer in exact] == list(edges)


def requests_with_edge(gateway: Gateway, edge: int) -> Iterator[dict[str, Any]]:
    """Yield greedy requests whose thinking changes its course at a token."""
    question = chain(Random(edge), 6)
    limits = {"temperature": 0, "max_tokens": 200}
    at_edge = {"max_thinking_tokens": edge}
    off = {"on_loop": "off"}
    yield body(gateway, question, **limits, **at_edge, min_thinking_tokens=edge, thinking=off)
    yield body(gateway, question, **limits, min_thinking_tokens=edge, max_thinking_tokens=80)
    landing = {"landing": "sentence", "wrap_up_text": "\nFinal Answer:"}
    yield body(gateway, question, **limits, max_thinking_tokens=edge + 20, thinking=landing)
    continued = {"continuations": 2, "continuation_text": ["Wait", "Hmm, again."]}
    yield body(gateway, question, **limits, max_thinking_tokens=edge + 60, thinking=continued)


@pytest.mark.parametrize("draft_gateway", ["shorter-1"], indirect=True)
def test_sampled_continuations_have_the_distribution_of_s1(
    draft_gateway: Gateway, vllm_gateway: Gateway
) -> None:
    """Under rejection sampling, which replaces most drafts of this model."""
    assert_sampled_law(draft_gateway, vllm_gateway)
