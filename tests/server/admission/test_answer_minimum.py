"""`min_tokens` and `ignore_eos`: the minimum length of the answer, apart from the thinking."""

from typing import Any

import pytest

from proctor.server.engines.fake import FakeEngine, Script
from tests.server.api.test_completions import COMPLETIONS, OPEN, completion_body
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client

SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


async def post(fields: dict[str, Any], script: Script, path: str = CHAT) -> Any:
    engine = FakeEngine(script)
    async with client(engine) as http:
        response = await http.post(path, json=fields)
    assert response.status_code == 200, response.text
    return engine, response.json()


@pytest.mark.parametrize("thinking", [(), ("Let me see.",), ("a" * 60,)])
@pytest.mark.parametrize("minimum", [1, 2, 9, 40])
async def test_an_answer_has_at_least_min_tokens(thinking: tuple[str], minimum: int) -> None:
    fields = body(min_tokens=minimum, max_thinking_tokens=20, max_tokens=90)

    engine, answer = await post(fields, Script(thinking, "42"))

    usage, choice = answer["usage"], answer["choices"][0]
    assert len(choice["message"]["content"]) == max(2, minimum)
    assert choice["finish_reason"] == "stop"
    assert choice["thinking"]["tokens"] == min(20, sum(map(len, thinking)))
    assert engine.jobs[0].budget.answer_minimum == minimum
    assert usage["completion_tokens"] > minimum


async def test_the_thinking_leaves_room_for_min_tokens() -> None:
    """The thinking leaves room for it, although the answer reserve is smaller."""
    fields = body(min_tokens=50, max_tokens=90)

    _, answer = await post(fields, Script(("a" * 99,), "b" * 10))

    choice = answer["choices"][0]
    assert choice["thinking"]["tokens"] == 90 - 50 - 1
    assert len(choice["message"]["content"]) == 50


@pytest.mark.parametrize("more", [{}, {"min_thinking_tokens": 30}, {"max_thinking_tokens": 0}])
async def test_ignore_eos_generates_up_to_max_tokens(more: dict[str, Any]) -> None:
    fields = body(ignore_eos=True, max_tokens=120, return_token_ids=True, **more)

    _, answer = await post(fields, Script(("Let me see.",), "42"))

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 120
    assert len(answer["choices"][0]["token_ids"]) == 120
    assert answer["choices"][0]["thinking"]["tokens"] >= more.get("min_thinking_tokens", 0)


@pytest.mark.parametrize("prompt", [OPEN, "hi"])
async def test_ignore_eos_with_raw_prompts(prompt: str) -> None:
    fields = completion_body(prompt, ignore_eos=True, max_tokens=60)

    _, answer = await post(fields, Script(("so",), "42"), COMPLETIONS)

    assert answer["usage"]["completion_tokens"] == 60
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("tokens_per_delta", [1, 2, 3, 7])
@pytest.mark.parametrize("minimum", [0, 3, 4])
async def test_stop_strings_apply_after_min_tokens(tokens_per_delta: int, minimum: int) -> None:
    script = Script(("so",), "a.bc.d.e")
    fields = body(min_tokens=minimum, stop=".")
    async with client(FakeEngine(script, tokens_per_delta=tokens_per_delta)) as http:
        choice = (await http.post(CHAT, json=fields)).json()["choices"][0]
        raw = (await http.post(COMPLETIONS, json=completion_body(OPEN, **fields_of(fields)))).json()

    expected = {0: "a", 3: "a.bc", 4: "a.bc"}[minimum]
    assert choice["message"]["content"] == expected
    assert choice["finish_reason"] == "stop"
    assert raw["choices"][0]["text"] == "so</think>" + expected


def fields_of(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in ("min_tokens", "stop")}


@pytest.mark.parametrize("fields", [{"min_tokens": 0}, {"ignore_eos": False}, {}])
async def test_values_without_effect_set_no_minimum(fields: dict[str, Any]) -> None:
    engine, answer = await post(body(**fields), Script((), "42"))

    assert answer["choices"][0]["message"]["content"] == "42"
    assert engine.jobs[0].budget.answer_minimum == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_tokens": 50, "max_tokens": 50}, "min_tokens"),
        ({"min_tokens": 5000}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 1.5}, "min_tokens"),
        ({"ignore_eos": "yes"}, "ignore_eos"),
        ({"ignore_eos": True, "response_format": SCHEMA}, "ignore_eos"),
        ({"min_tokens": 3, "structured_outputs": {"choice": ["a"]}}, "min_tokens"),
        (
            {"min_tokens": 40, "max_tokens": 90, "min_thinking_tokens": 60},
            "min_thinking_tokens",
        ),
    ],
)
async def test_an_invalid_field_is_named(fields: dict[str, Any], param: str) -> None:
    engine = FakeEngine()
    async with client(engine) as http:
        assert_error(await http.post(CHAT, json=body(**fields)), 400, param)
    assert not engine.jobs
