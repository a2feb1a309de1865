"""Grammars that take long, or never end, beside requests that are as they should be."""

import asyncio
import json
from random import Random
from typing import Any

import httpx
import pytest

from tests.engine.asking import CHAT, body
from tests.engine.prompts import chain
from tests.engine.served import Served
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"digits": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["digits"],
    "additionalProperties": False,
}


def counting(k: int) -> dict[str, Any]:
    properties = {f"p{i}": {"type": "integer"} for i in range(200)}
    return {
        "type": "object",
        "properties": properties,
        "minProperties": 100 - k,
        "maxProperties": 150,
    }


def asked(served: Served, **fields: Any) -> dict[str, Any]:
    return body(served, chain(Random(3), 3), max_thinking_tokens=8, max_tokens=64, **fields)


async def test_good_requests_are_served_beside_hostile_grammars(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as http:
        hostile = [
            asyncio.create_task(
                http.post(CHAT, json=asked(served, structured_outputs={"json": counting(k)}))
            )
            for k in range(8)
        ]
        any_object, of_schema, plain = await asyncio.gather(
            http.post(CHAT, json=asked(served, response_format={"type": "json_object"})),
            http.post(CHAT, json=asked(served, structured_outputs={"json": SCHEMA})),
            http.post(CHAT, json=asked(served)),
        )
        left, stayed = hostile[1:], hostile[0]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        refused = await stayed

    assert [r.status_code for r in (any_object, of_schema, plain)] == [200, 200, 200]
    answer = of_schema.json()["choices"][0]["message"]["content"]
    assert set(json.loads(answer)) == {"digits"}
    if refused.status_code != 200:  # a machine that compiles it in time may serve it
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "structured_outputs.json"


FORMS: list[dict[str, Any]] = [
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


@pytest.mark.parametrize("form", FORMS, ids=lambda form: json.dumps(form)[:40])
async def test_every_form_is_an_answer_or_a_400_by_name(
    served: Served, form: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as http:
        response = await http.post(CHAT, json=asked(served, structured_outputs=form))

    if response.status_code == 200:
        assert response.json()["choices"][0]["finish_reason"] in ("stop", "length")
    else:
        assert response.status_code == 400
        assert response.json()["error"]["param"] == f"structured_outputs.{next(iter(form))}"


async def test_each_grammar_holds_whichever_backend_came_first(served: Served) -> None:
    """vLLM alone keeps to the first one, and lets a form through that it does not know."""
    sevens = {"json": {"type": "integer", "multipleOf": 7, "minimum": 7, "maximum": 98}}
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as http:
        for _ in range(2):
            one = await http.post(CHAT, json=asked(served, structured_outputs=sevens))
            other = await http.post(CHAT, json=asked(served, structured_outputs={"json": SCHEMA}))
            assert int(one.json()["choices"][0]["message"]["content"]) % 7 == 0
            assert set(json.loads(other.json()["choices"][0]["message"]["content"])) == {"digits"}
