"""Grammars that compile slowly or never, concurrent with ordinary requests."""

import asyncio
import json
from random import Random
from typing import Any

import httpx
import pytest

from tests.engine.client import CHAT, body
from tests.engine.gateway import Gateway
from tests.engine.prompts import chain
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"digits": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["digits"],
    "additionalProperties": False,
}


def counting_schema(k: int) -> dict[str, Any]:
    properties = {f"p{i}": {"type": "integer"} for i in range(200)}
    return {
        "type": "object",
        "properties": properties,
        "minProperties": 100 - k,
        "maxProperties": 150,
    }


def request(gateway: Gateway, **fields: Any) -> dict[str, Any]:
    return body(gateway, chain(Random(3), 3), max_thinking_tokens=8, max_tokens=64, **fields)


async def test_hostile_grammars_do_not_block_good_requests(
    vllm_gateway: Gateway,
) -> None:
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as http:
        hostile = [
            asyncio.create_task(
                http.post(
                    CHAT,
                    json=request(vllm_gateway, structured_outputs={"json": counting_schema(k)}),
                )
            )
            for k in range(8)
        ]
        any_object, with_schema, plain = await asyncio.gather(
            http.post(CHAT, json=request(vllm_gateway, response_format={"type": "json_object"})),
            http.post(CHAT, json=request(vllm_gateway, structured_outputs={"json": SCHEMA})),
            http.post(CHAT, json=request(vllm_gateway)),
        )
        cancelled, remaining = hostile[1:], hostile[0]
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        refused = await remaining

    assert [r.status_code for r in (any_object, with_schema, plain)] == [200, 200, 200]
    answer = with_schema.json()["choices"][0]["message"]["content"]
    assert set(json.loads(answer)) == {"digits"}
    if refused.status_code != 200:  # a fast machine may compile it within the limit
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "structured_outputs.json"


CONSTRAINTS: list[dict[str, Any]] = [
    {"regex": "a{0,48000}" * 50},
    {"regex": "(((((((a?b?)?c?)?d?)?e?)?f?)?g?)?h?)*"},
    {"json": {"type": "string", "maxLength": 10**6}},
    {"json": {"enum": [f"value {i}" for i in range(3000)]}},
    {"json": {"$ref": "#"}},
    {"json": {"type": "integer", "multipleOf": 7}},
    {"grammar": 'root ::= e\ne ::= e e | "a" | "aa" | e "a"'},
    {"grammar": 'start: e\ne: e e | "a" | "aa"'},
    {"grammar": "root ::= " + "(" * 20000 + '"a"' + ")" * 20000},
    {"choice": ["yes", "no"]},
    {"structural_tag": '{"triggers": 1}'},
]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda each: json.dumps(each)[:40])
async def test_every_constraint_is_answered_or_a_400_that_names_it(
    vllm_gateway: Gateway, constraint: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as http:
        response = await http.post(CHAT, json=request(vllm_gateway, structured_outputs=constraint))

    if response.status_code == 200:
        assert response.json()["choices"][0]["finish_reason"] in ("stop", "length")
    else:
        assert response.status_code == 400
        assert response.json()["error"]["param"] == f"structured_outputs.{next(iter(constraint))}"


async def test_each_grammar_is_enforced_whichever_backend_came_first(vllm_gateway: Gateway) -> None:
    """vLLM by itself keeps the first backend, and accepts constraints that it does not support."""
    sevens = {"json": {"type": "integer", "multipleOf": 7, "minimum": 7, "maximum": 98}}
    async with httpx.AsyncClient(base_url=vllm_gateway.url, timeout=PATIENCE) as http:
        for _ in range(2):
            first = await http.post(CHAT, json=request(vllm_gateway, structured_outputs=sevens))
            second = await http.post(
                CHAT, json=request(vllm_gateway, structured_outputs={"json": SCHEMA})
            )
            assert int(first.json()["choices"][0]["message"]["content"]) % 7 == 0
            assert set(json.loads(second.json()["choices"][0]["message"]["content"])) == {"digits"}
