from typing import Any

import pytest

from proctor.server.engines.fake import END_THINK, END_TURN, THINK, FakeEngine, Script
from tests.server.harness import CHAT, body, client

SCRIPT = Script(("one ☃", "two", "three"), "\n\nThe answer is ☃")


async def ask(engine: FakeEngine, fields: dict[str, Any], **settings: Any) -> Any:
    async with client(engine, **settings) as http:
        response = await http.post(CHAT, json=body(**fields))
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_whole_response() -> None:
    answer = await ask(FakeEngine(SCRIPT), {})

    assert answer["object"] == "chat.completion"
    assert answer["model"] == "fake"
    assert answer["cost"] is None
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "The answer is ☃",
                "reasoning_content": "one ☃",
            },
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
    generated = 7 + 1 + len("\n\nThe answer is ☃".encode()) + 1
    assert answer["usage"]["completion_tokens"] == generated
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 7}
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + generated


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_thinking_tokens": 3}, {"tokens": 3, "max_tokens": 3, "end_reason": "max"}),
        ({"max_thinking_tokens": 0}, {"tokens": 0, "max_tokens": 0, "end_reason": "disabled"}),
        ({"max_thinking_tokens": -1}, {"max_tokens": None, "end_reason": "natural"}),
        ({"min_thinking_tokens": 20}, {"tokens": 23, "continuations": 2, "forced_tokens": 8}),
        ({"thinking": {"type": "disabled"}}, {"tokens": 0, "end_reason": "disabled"}),
        ({"thinking": {"budget_tokens": 2}}, {"tokens": 2, "end_reason": "max"}),
        ({"thinking": {"min_tokens": 8}}, {"tokens": 14, "min_tokens": 8}),
        ({"thinking": {"continuations": 2}}, {"continuations": 2, "end_reason": "natural"}),
        (
            {"thinking": {"continuations": 2, "continuation_text": ["A", "BC"]}},
            {"tokens": 7 + 1 + 3 + 2 + 5, "forced_tokens": 3},
        ),
        (
            {"max_thinking_tokens": 5, "thinking": {"wrap_up_text": "End"}},
            {"tokens": 5, "forced_tokens": 4, "end_reason": "max"},
        ),
        ({"max_tokens": 20}, {"tokens": 3, "max_tokens": None, "end_reason": "length"}),
        ({"max_thinking_tokens": 10**6}, {"clamped": True, "end_reason": "natural"}),
    ],
)
async def test_budgets_are_enforced_and_reported(
    fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    answer = await ask(FakeEngine(SCRIPT), fields)

    thinking = answer["choices"][0]["thinking"]
    assert {key: thinking[key] for key in expected} == expected
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == thinking["tokens"]
    assert answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_that_goes_on_in_the_answer_is_told(stream: bool) -> None:
    thought, answer = "no, wait ☃", "42"
    engine = FakeEngine(Script(("first",), (*thought.encode(), END_THINK, *answer.encode())))

    async with client(engine) as http:
        fields = body(max_thinking_tokens=2, stream=stream)
        response = await http.post(CHAT, json=fields)
        metrics = (await http.get("/metrics")).text

    spilled = len(thought.encode())
    assert f'"spilled_tokens":{spilled}' in response.text.replace(" ", "")
    assert f'proctor_spilled_tokens_total{{tier="custom"}} {spilled}.0' in metrics
    if not stream:  # it stays in the answer, without the marker
        assert response.json()["choices"][0]["message"]["content"] == thought + answer


async def test_a_model_that_opens_its_thinking() -> None:
    engine = FakeEngine(SCRIPT, opens=False)

    forced = (await ask(engine, {"min_thinking_tokens": 8}))["choices"][0]

    assert forced["message"]["reasoning_content"] == "one ☃Waittwo"
    assert forced["thinking"]["forced_tokens"] == len("Wait") + 1


async def test_a_model_that_does_not_think() -> None:
    choice = (await ask(FakeEngine(Script((), "hi"), opens=False), {}))["choices"][0]

    assert choice["message"] == {"role": "assistant", "content": "hi", "reasoning_content": None}
    assert choice["thinking"]["end_reason"] == "disabled"


async def test_disabled_thinking_uses_the_chat_template() -> None:
    engine = FakeEngine(SCRIPT)

    await ask(engine, {"max_thinking_tokens": 0})

    assert not engine.jobs[0].budget.opened
    assert END_THINK in engine.jobs[0].prompt_ids


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("reasoning_content", {"content": "b", "reasoning_content": "a"}),
        ("reasoning", {"content": "b", "reasoning": "a"}),
        ("both", {"content": "b", "reasoning_content": "a", "reasoning": "a"}),
        ("tags", {"content": "<think>a</think>b", "reasoning_content": None}),
        ("hidden", {"content": "b", "reasoning_content": None}),
    ],
)
@pytest.mark.parametrize("by", ["request", "setting"])
async def test_reasoning_formats(style: str, message: dict[str, str], by: str) -> None:
    fields = {"reasoning_format": style}
    engine = FakeEngine(Script(("a",), "b"))

    answer = await ask(engine, fields) if by == "request" else await ask(engine, {}, **fields)

    assert answer["choices"][0]["message"] == {"role": "assistant", **message}
    assert answer["choices"][0]["thinking"]["tokens"] == 1


async def test_tags_enclose_every_thinking_block() -> None:
    script = Script(("",), [*b"x", THINK, *b"more", END_THINK, *b"y"])

    answer = await ask(FakeEngine(script), {"reasoning_format": "tags", "max_tokens": 20})

    assert answer["choices"][0]["message"]["content"] == "x<think>mor</think>y"


async def test_each_choice_has_its_own_job_and_seed() -> None:
    engine = FakeEngine(lambda job: Script(("a",), f"seed {job.sampling.seed}"))

    answer = await ask(engine, {"n": 3, "seed": 2**63 - 2})

    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert texts == [f"seed {2**63 - 2}", f"seed {2**63 - 1}", f"seed {-(2**63)}"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({job.id for job in engine.jobs}) == 3
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


@pytest.mark.parametrize("tokens_per_delta", [1, 4])
async def test_a_stop_string_ends_the_answer_and_aborts_the_job(tokens_per_delta: int) -> None:
    engine = FakeEngine(
        Script(("a stop b",), "go on, stop here"), tokens_per_delta=tokens_per_delta
    )

    answer = await ask(engine, {"stop": ["nowhere", "stop"]})

    choice = answer["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "go on, ",
        "reasoning_content": "a stop b",
    }
    assert choice["finish_reason"] == "stop"
    assert engine.aborted.get_nowait() == engine.jobs[0].id


async def test_sampling_reaches_the_engine() -> None:
    engine = FakeEngine()

    sampling = {"temperature": 0, "top_p": 0.5, "seed": 7, "max_completion_tokens": 99}

    async with client(engine) as http:
        await http.post(CHAT, json=body(**sampling))
        await http.post(CHAT, json=body())

    first, second = (job.sampling for job in engine.jobs)
    assert (first.temperature, first.top_p, first.seed, first.max_tokens) == (0, 0.5, 7, 99)
    assert (second.temperature, second.top_p, second.seed) == (None, None, None)
    assert second.max_tokens == 4096 - len(engine.jobs[1].prompt_ids)


async def test_messages_reach_the_template() -> None:
    engine = FakeEngine()
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts},
        {
            "role": "assistant",
            "content": "yes",
            "reasoning_content": "hm",
            "refusal": None,
            "annotations": [],
            "tool_calls": None,
        },
        {"role": "user", "content": "<think> </think>"},
    ]

    await ask(engine, {"messages": messages})

    prompt = bytes(token for token in engine.jobs[0].prompt_ids if token < 256).decode()
    assert prompt == (
        "system\nbe brief\nuser\none\ntwo\nassistant\nyes\nuser\n<think> </think>\nassistant\n\n"
    )
    assert engine.jobs[0].prompt_ids.count(THINK) == 1
    assert engine.jobs[0].prompt_ids.count(END_TURN) == 4


async def test_the_default_budget() -> None:
    budget = {"min_tokens": 8, "max_tokens": 30, "continuations": 1, "continuation_text": "Hm"}

    async def thinking(**fields: Any) -> Any:
        answer = await ask(FakeEngine(SCRIPT), fields, budget=budget)
        return answer["choices"][0]["thinking"]

    assert (await thinking())["continuations"] == 1
    assert (await thinking(max_thinking_tokens=3))["tokens"] == 3
    assert (await thinking(max_thinking_tokens=0))["tokens"] == 0
    assert (await thinking(thinking={"type": "disabled"}))["tokens"] == 0
    assert (await thinking(max_thinking_tokens=-1))["max_tokens"] is None


async def test_enabled_thinking_overrides_a_default_of_none() -> None:
    fields = {"thinking": {"type": "enabled"}}

    answer = await ask(FakeEngine(SCRIPT), fields, budget={"max_tokens": 0})

    assert answer["choices"][0]["thinking"]["tokens"] == 7
