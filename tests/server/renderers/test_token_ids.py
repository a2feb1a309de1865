"""`return_token_ids` and `prompt_logprobs` of chats."""

from typing import Any

import pytest

from proctor.server.engines.fake import END_THINK, END_TURN, FakeEngine, Script
from tests.server.api.test_completions import COMPLETIONS, completion_body
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client, parse_events

SCRIPT = Script(("one ☃",), "\n\nIt is 4.")
IDS = [*"one ☃".encode(), END_THINK, *b"\n\nIt is 4.", END_TURN]


@pytest.mark.parametrize("style", ["reasoning_content", "both", "tags"])
@pytest.mark.parametrize("tokens_per_delta", [1, 4])
async def test_token_ids_whole_and_streamed(style: str, tokens_per_delta: int) -> None:
    engine = FakeEngine(SCRIPT, tokens_per_delta=tokens_per_delta)
    fields = body(return_token_ids=True, n=2, reasoning_format=style)
    async with client(engine) as http:
        whole = (await http.post(CHAT, json=fields)).json()
        events = parse_events((await http.post(CHAT, json=fields | {"stream": True})).text)[:-1]

    assert whole["prompt_token_ids"] == [*engine.jobs[0].prompt_ids]
    assert [choice["token_ids"] for choice in whole["choices"]] == [IDS, IDS]
    for index in range(2):
        mine = [one for one in events if one.choice["index"] == index]
        assert mine[0].data["prompt_token_ids"] == whole["prompt_token_ids"]
        assert [token for one in mine for token in one.choice.get("token_ids", [])] == IDS
        content = "".join(one.choice["delta"].get("content", "") for one in mine)
        assert content == whole["choices"][index]["message"]["content"]


async def test_no_token_ids_unless_requested() -> None:
    async with client(FakeEngine(SCRIPT)) as http:
        chat = (await http.post(CHAT, json=body())).json()
        streamed = (await http.post(CHAT, json=body(stream=True))).text
        raw = (await http.post(COMPLETIONS, json=completion_body("hi"))).json()

    for content in (str(chat), streamed, str(raw)):
        assert "token_ids" not in content
        assert "prompt_logprobs" not in content


@pytest.mark.parametrize(
    "hides", [{"reasoning_format": "hidden"}, {"reasoning": {"exclude": True}}]
)
async def test_token_ids_with_a_hidden_thinking_are_refused(hides: dict[str, Any]) -> None:
    engine = FakeEngine(SCRIPT)
    async with client(engine) as http:
        assert_error(
            await http.post(CHAT, json=body(return_token_ids=True, **hides)),
            400,
            "return_token_ids",
        )
    assert not engine.jobs


async def test_prompt_logprobs_of_a_chat() -> None:
    engine = FakeEngine(SCRIPT)
    async with client(engine) as http:
        answer = (await http.post(CHAT, json=body(prompt_logprobs=2, n=2))).json()

    ids = engine.jobs[0].prompt_ids
    first, second, *_ = answer["prompt_logprobs"]
    assert first is None
    assert len(answer["prompt_logprobs"]) == len(ids)
    assert second[str(ids[1])] == {"logprob": 0.0, "rank": 1, "decoded_token": chr(ids[1])}
    assert len(second) == 2
    assert [job.sampling.prompt_logprobs for job in engine.jobs] == [2, None]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": True}, "prompt_logprobs"),
        ({"return_token_ids": 1}, "return_token_ids"),
    ],
)
async def test_an_invalid_field_is_named(fields: dict[str, Any], param: str) -> None:
    async with client(FakeEngine()) as http:
        assert_error(await http.post(CHAT, json=body(**fields)), 400, param)
