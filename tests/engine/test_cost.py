"""Cached prompt tokens reported by the real engine, and their cost."""

from decimal import Decimal
from pathlib import Path
from random import Random

import httpx
import pytest

from proctor.server.app import create_app
from tests.engine.client import CHAT, body
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.engine.recording_engine import KeptOpen
from tests.server.accounting.ledger.records import read_records
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine


def test_cached_prompt_tokens_cost_less(vllm_gateway: Gateway, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    prices = {"prompt": "10", "cached_prompt": "1", "thinking": "20", "answer": "40"}
    fields = {**vllm_gateway.settings.model_dump(), "prices": prices, "ledger": {"url": url}}
    settings = type(vllm_gateway.settings).model_validate(fields)
    app = create_app(settings, lambda: KeptOpen(vllm_gateway.engine))
    rng = Random(5)
    text = " ".join(chain(rng, 10) for _ in range(8))  # longer than a block of the cache

    async def send_twice() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=transport, base_url="http://test", timeout=PATIENCE
            ) as http,
        ):
            await app.state.supervisor.loaded()
            request = body(vllm_gateway, text, max_tokens=64, max_thinking_tokens=24)
            return [await http.post(CHAT, json=request) for _ in range(2)]

    first, second = vllm_gateway.run(send_twice())
    rows = vllm_gateway.run(read_records(url))

    responses = (first, second)
    usages = [response.json()["usage"] for response in responses]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached[0] < cached[1] < usages[1]["prompt_tokens"]
    assert [row.cached_tokens for row in rows] == cached
    for row, response, usage, saved in zip(rows, responses, usages, cached, strict=True):
        assert row.cost is not None
        assert f"{row.cost.total:f}" == response.headers["x-cost"]
        prompt = usage["prompt_tokens"] * 10 - saved * 9
        assert row.cost.prompt == Decimal(prompt) / 1_000_000
        assert row.completion_tokens == usage["completion_tokens"]
