"""Completions of raw prompts."""

from typing import Any

import httpx
import openai
import pytest

from proctor.server.engines.fake import BYTES, END_THINK, THINK, FakeEngine, Script
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, Gate, client, parse_events, running_server, with_timeout
from tests.server.test_app import samples

COMPLETIONS = "/v1/completions"
OPEN = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n"
SCRIPT = Script(("one ☃", "two", "three"), "\n\nIt is 4.")
RAW = "one ☃</think>\n\nIt is 4."


def completion_body(prompt: Any = OPEN, **fields: Any) -> dict[str, Any]:
    return {"model": "fake", "prompt": prompt, "max_tokens": 500, **fields}


async def post(engine: FakeEngine, fields: dict[str, Any], **settings: Any) -> httpx.Response:
    async with client(engine, **settings) as http:
        return await http.post(COMPLETIONS, json=fields)


async def ask(fields: dict[str, Any], script: Script = SCRIPT, **settings: Any) -> Any:
    response = await post(FakeEngine(script), fields, **settings)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_whole_response() -> None:
    answer = await ask(completion_body())

    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {
            "index": 0,
            "text": RAW,
            "logprobs": None,
            "finish_reason": "stop",
            "thinking": {
                "tier": None,
                "min_tokens": 0,
                "max_tokens": None,
                "tokens": 7,
                "forced_tokens": 0,
                "forced_spans": [],
                "continuations": 0,
                "end_reason": "natural",
                "clamped": False,
                "loops": 0,
                "spilled_tokens": 0,
                "probe_tokens": 0,
            },
        }
    ]
    usage = answer["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 7}
    assert usage["completion_tokens"] == 7 + 1 + len("\n\nIt is 4.") + 1
    assert usage["prompt_tokens"] == len(OPEN) - len("<|im_start|>" * 2 + "<|im_end|><think>") + 4


async def test_a_rendered_chat_prompt_gives_the_same_tokens_as_the_chat() -> None:
    chat, raw = FakeEngine(SCRIPT), FakeEngine(SCRIPT)
    budget = {"max_thinking_tokens": 9, "min_thinking_tokens": 8, "seed": 3, "temperature": 0.5}

    async with client(chat) as http:
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": "fake", "messages": messages, "max_tokens": 500, **budget}
        chat_choice = (await http.post(CHAT, json=body)).json()["choices"][0]
    response = await post(raw, completion_body([*chat.jobs[0].prompt_ids], **budget))

    (ours,), (theirs,) = raw.jobs, chat.jobs
    assert (ours.prompt_ids, ours.sampling, ours.budget) == (
        theirs.prompt_ids,
        theirs.sampling,
        theirs.budget,
    )
    choice = response.json()["choices"][0]
    assert choice["thinking"] == chat_choice["thinking"]
    assert choice["text"].startswith(chat_choice["message"]["reasoning_content"] + "</think>")


@pytest.mark.parametrize(
    "prompt", ["hi", ["hi"], [*b"hi"], [[*b"hi"]], "<think>a</think>hi", "<think>a<|im_end|>hi"]
)
async def test_a_prompt_that_opens_no_thinking(prompt: Any) -> None:
    engine = FakeEngine(Script((), "there"))
    choice = (await post(engine, completion_body(prompt))).json()["choices"][0]

    assert choice["text"] == "there"
    assert choice["thinking"]["end_reason"] == "disabled"
    assert not engine.jobs[0].budget.opened
    assert bytes(token for token in engine.jobs[0].prompt_ids if token < BYTES).endswith(b"hi")


@pytest.mark.parametrize("prompt", ["<think>", "a<think>\nso far", [THINK, *b"so far"]])
async def test_a_prompt_that_ends_inside_a_thinking(prompt: Any) -> None:
    engine = FakeEngine(SCRIPT)
    choice = (await post(engine, completion_body(prompt, max_thinking_tokens=3))).json()["choices"][
        0
    ]

    assert engine.jobs[0].budget.opened
    assert choice["text"] == "one</think>\n\nIt is 4."
    assert choice["thinking"]["end_reason"] == "max"


async def test_a_maximum_of_zero_closes_the_thinking_at_once() -> None:
    assert (await ask(completion_body(max_thinking_tokens=0)))["choices"][0]["text"] == (
        "</think>\n\nIt is 4."
    )


async def test_continuations_are_part_of_the_text() -> None:
    choice = (await ask(completion_body(thinking={"continuations": 2})))["choices"][0]

    text, thinking = choice["text"], choice["thinking"]
    assert text == "one ☃WaittwoWaitthree</think>\n\nIt is 4."
    assert thinking["continuations"] == 2
    spans = thinking["forced_spans"]
    assert [text[span["start"] : span["end"]] for span in spans] == ["Wait", "Wait"]


async def test_a_thinking_that_the_model_opens_itself() -> None:
    script = Script((), [*b"so ", THINK, *b"hm", END_THINK, *b"4"])

    choice = (await ask(completion_body("hi"), script))["choices"][0]

    assert choice["text"] == "so <think>hm</think>4"
    assert choice["thinking"]["tokens"] == 2


@pytest.mark.parametrize("tokens_per_delta", [1, 3])
async def test_stop_strings_apply_to_the_answer_only(tokens_per_delta: int) -> None:
    engine = FakeEngine(
        Script(("a stop b",), "go on, stop here"), tokens_per_delta=tokens_per_delta
    )

    choice = (await post(engine, completion_body(stop="stop"))).json()["choices"][0]

    assert choice["text"] == "a stop b</think>go on, "
    assert choice["finish_reason"] == "stop"
    assert engine.aborted.get_nowait() == engine.jobs[0].id


async def test_max_tokens_is_sixteen_by_default() -> None:
    fields = {"model": "fake", "prompt": "hi"}

    answer = await ask(fields, Script((), "x" * 99))
    short = await post(FakeEngine(Script((), "x" * 99), context_length=10), fields)

    assert answer["choices"][0] | {"thinking": None} == {
        "index": 0,
        "text": "x" * 16,
        "logprobs": None,
        "finish_reason": "length",
        "thinking": None,
    }
    assert short.json()["choices"][0]["text"] == "x" * 8


async def test_a_stream() -> None:
    fields = completion_body(stream=True, n=2, stream_options={"include_usage": True})

    events = parse_events((await post(FakeEngine(SCRIPT), fields)).text)

    for index in range(2):
        mine = [one for one in events[:-2] if one.choice["index"] == index]
        assert "".join(one.choice["text"] for one in mine) == RAW
        assert {one.name for one in mine[:-1]} == {"reasoning", "answer"}
        answer = "".join(one.choice["text"] for one in mine if one.name == "answer")
        assert answer == "\n\nIt is 4."
        assert (mine[-1].name, mine[-1].choice["finish_reason"]) == (None, "stop")
        assert mine[-1].choice["thinking"]["tokens"] == 7
    assert events[-2].data["usage"]["completion_tokens_details"] == {"reasoning_tokens": 14}
    assert events[-1].data == "[DONE]"


async def test_a_character_of_several_tokens_is_streamed_whole() -> None:
    script = Script(("🤔",), "é")
    events = parse_events((await post(FakeEngine(script), completion_body(stream=True))).text)

    # The engine produces all at once, so that text of one channel is one event.
    assert [one.choice["text"] for one in events[:-1]] == ["🤔</think>", "é", ""]


async def test_the_openai_sdk() -> None:
    async with (
        running_server(FakeEngine(SCRIPT)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as sdk,
    ):
        whole = await sdk.completions.create(model="fake", prompt=OPEN, max_tokens=500)
        stream = await sdk.completions.create(
            model="fake", prompt=OPEN, max_tokens=500, stream=True
        )
        pieces = [chunk.choices[0].text async for chunk in stream]

    assert whole.choices[0].text == "".join(pieces) == RAW


async def test_a_disconnect_aborts_the_job() -> None:
    gate = Gate(3)
    engine = FakeEngine(SCRIPT, before_token=gate)
    async with running_server(engine) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            waiting = http.stream("POST", COMPLETIONS, json=completion_body(stream=True))
            async with waiting as response:
                assert response.status_code == 200
                await with_timeout(gate.reached.wait())
        assert await with_timeout(engine.aborted.get()) == engine.jobs[0].id


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": ["a", None]}, "prompt[1]"),
        ({"prompt": [[1], [2, "a"]]}, "prompt[1][1]"),
        ({"prompt": ["a", [1, BYTES + 4]]}, "prompt[1][1]"),
        ({"prompt": ["a", "x" * 5000]}, "prompt[1]"),
        ({"prompt": ["a", [1] * 5000]}, "prompt[1]"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": ["a"] * 9, "n": 2}, "prompt"),
        ({"prompt": [OPEN, "a"], "min_thinking_tokens": 1}, "min_thinking_tokens"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [1, -1]}, "prompt[1]"),
        ({"prompt": [1, BYTES + 4]}, "prompt[1]"),
        ({"prompt": [1] * 5000}, "prompt"),
        ({"prompt": "x" * 5000}, "prompt"),
        ({"prompt": "x" * 10**6}, "prompt"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"echo": "yes"}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "a"}, "suffix"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt": [[7] * 4000] * 3, "max_tokens": 1, "prompt_logprobs": 20}, "prompt_logprobs"),
        (
            {"prompt": [[7] * 4000] * 3, "max_tokens": 1, "logprobs": 20, "echo": True},
            "logprobs",
        ),
        ({"min_tokens": 501}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"return_token_ids": 1}, "return_token_ids"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"messages": []}, "messages"),
        ({"n": 17}, "n"),
        ({"stream_options": {}}, "stream_options"),
        ({"budget_tier": "auto"}, "budget_tier"),
        ({"thinking": {"type": "auto"}}, "thinking.type"),
        ({"budget_tier": "vast"}, "budget_tier"),
        ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
        ({"reasoning_format": "tags"}, "reasoning_format"),
        ({"min_thinking_tokens": 9, "max_thinking_tokens": 8}, "min_thinking_tokens"),
        ({"prompt": "hi", "min_thinking_tokens": 1}, "min_thinking_tokens"),
        ({"prompt": "hi", "thinking": {"min_tokens": 1}}, "thinking.min_tokens"),
        ({"prompt": "hi", "thinking": {"continuations": 1}}, "thinking.continuations"),
        ({"prompt": "hi", "thinking": {"type": "enabled"}}, "thinking.type"),
        ({"prompt": "hi", "budget_tier": "high"}, "budget_tier"),
        ({"prompt": "hi", "reasoning_effort": "high"}, "reasoning_effort"),
    ],
)
async def test_an_invalid_field_is_named(fields: dict[str, Any], param: str) -> None:
    engine = FakeEngine()

    assert_error(await post(engine, {**completion_body(), **fields}), 400, param)
    assert not engine.jobs


@pytest.mark.parametrize(
    "fields",
    [{}, {"max_thinking_tokens": 3}, {"budget_tier": "low"}, {"min_thinking_tokens": 0}],
)
@pytest.mark.parametrize("default", ["auto", "custom", "low", "high"])
async def test_defaults_do_not_open_a_thinking(default: str, fields: dict[str, Any]) -> None:
    engine = FakeEngine(Script((), "there"))
    settings = {"default_tier": default, "budget": {"min_tokens": 2, "continuations": 1}}

    answer = (await post(engine, completion_body("hi", **fields), **settings)).json()

    assert answer["choices"][0]["text"] == "there"
    assert not engine.jobs[0].budget.demands_thinking


@pytest.mark.parametrize(
    ("default", "label"), [("auto", "custom"), ("custom", "custom"), ("low", "low")]
)
async def test_raw_prompts_are_not_routed(default: str, label: str) -> None:
    answer = await post(FakeEngine(SCRIPT), completion_body(), default_tier=default)

    assert answer.headers["x-budget-tier"] == label
    assert answer.json()["choices"][0]["text"] == RAW


async def test_fields_without_effect_are_accepted() -> None:
    old = {"echo": False, "best_of": 1, "suffix": None, "logprobs": None, "user": "me"}

    response = await post(FakeEngine(SCRIPT), completion_body(**old))

    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "user"


async def test_metrics() -> None:
    async with client(FakeEngine(SCRIPT)) as http:
        await http.post(COMPLETIONS, json=completion_body(max_thinking_tokens=3))
        await http.post(COMPLETIONS, json=completion_body(model="other"))
        seen = samples((await http.get("/metrics")).text)

    def value(name: str, **labels: str) -> float:
        return seen["proctor_" + name, tuple(sorted(labels.items()))]

    assert value("requests_total", tier="custom", status="200", end_reason="max") == 1
    assert value("requests_total", tier="unresolved", status="404", end_reason="none") == 1
    assert value("routed_total", tier="custom", source="explicit") == 1
    assert value("thinking_tokens_sum", tier="custom", end_reason="max") == 3
    assert value("answer_tokens_sum", tier="custom") == len("\n\nIt is 4.")
    assert value("time_to_first_reasoning_seconds_count") == 1


async def test_the_cost_of_a_completion() -> None:
    prices = {"prompt": 1, "thinking": 2, "answer": 3}

    answer = await ask(completion_body(), prices=prices)

    cost = answer["cost"]
    assert cost["thinking"] == pytest.approx(2 * (7 + 2) / 10**6)
    assert cost["answer"] == pytest.approx(3 * len("\n\nIt is 4.") / 10**6)


async def test_a_dead_engine_is_a_503_or_an_error_event() -> None:
    whole = await post(FakeEngine(SCRIPT, die_after=3), completion_body())
    streamed = await post(FakeEngine(SCRIPT, die_after=3), completion_body(stream=True))

    assert_error(whole, 503, None)
    last = parse_events(streamed.text)[-1]
    assert last.name == "error"
    assert last.data["error"]["type"] == "server_error"
