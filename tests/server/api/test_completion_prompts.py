"""Lists of raw prompts; echo, logprobs and token ids."""

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.engines.base import TokenLogprob
from proctor.server.engines.fake import (
    BYTES,
    END_THINK,
    END_TURN,
    SPELLING,
    THINK,
    ByteCodec,
    FakeEngine,
    Script,
)
from proctor.server.renderers.logprobs import TextLogprobs, TextOffsets, columns
from tests.server.api.test_completions import COMPLETIONS, OPEN, RAW, SCRIPT, completion_body, post
from tests.server.api.test_errors import assert_error
from tests.server.harness import client, parse_events


async def ask(fields: dict[str, Any], script: Script = SCRIPT, **settings: Any) -> Any:
    response = await post(FakeEngine(script), fields, **settings)
    assert response.status_code == 200, response.text
    return response.json()


def plain(ids: list[int]) -> str:
    return b"".join(SPELLING.get(token) or bytes([token]) for token in ids).decode()


async def test_each_prompt_of_a_list_is_completed_as_if_alone() -> None:
    prompts = [OPEN, "hi", [THINK, *b"so"], [*b"ho"]]
    fields = {"n": 2, "seed": 7, "max_thinking_tokens": 5, "echo": True}
    together, alone = FakeEngine(SCRIPT), FakeEngine(SCRIPT)

    batch = (await post(together, completion_body(prompts, **fields))).json()
    async with client(alone) as http:
        answers = [
            (await http.post(COMPLETIONS, json=completion_body(prompt, **fields))).json()
            for prompt in prompts
        ]

    choices = [choice for answer in answers for choice in answer["choices"]]
    assert [choice["index"] for choice in batch["choices"]] == [*range(8)]
    for ours, theirs in zip(batch["choices"], choices, strict=True):
        assert ours | {"index": 0} == theirs | {"index": 0}
    for ours, theirs in zip(together.jobs, alone.jobs, strict=True):
        assert (ours.prompt_ids, ours.sampling, ours.budget) == (
            theirs.prompt_ids,
            theirs.sampling,
            theirs.budget,
        )
    assert len({job.id for job in together.jobs}) == 8
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert batch["usage"][name] == sum(answer["usage"][name] for answer in answers)


async def test_a_batch_is_streamed_by_index() -> None:
    fields = completion_body([OPEN, "hi"], n=2, stream=True, stream_options={"include_usage": True})

    events = parse_events((await post(FakeEngine(SCRIPT), fields)).text)

    texts = dict.fromkeys(range(4), "")
    for one in events[:-2]:
        texts[one.choice["index"]] += one.choice["text"]
    assert texts == {0: RAW, 1: RAW, 2: "<think>" + RAW, 3: "<think>" + RAW}
    assert events[-2].data["usage"]["prompt_tokens"] == 23 + 2


async def test_one_invalid_prompt_refuses_the_whole_list() -> None:
    engine = FakeEngine(SCRIPT)

    response = await post(engine, completion_body(["hi", "ho", [1, 2, BYTES + 4]]))

    assert_error(response, 400, "prompt[2][2]")
    assert not engine.jobs


async def test_a_list_costs_what_its_prompts_cost() -> None:
    prices = {"prompt": 10, "thinking": 2, "answer": 3, "cached_prompt": 1}
    script = Script((), "four")
    prompts = ["12345", "123"]

    async with client(FakeEngine(script, cached_tokens=2), prices=prices) as http:
        answer = (await http.post(COMPLETIONS, json=completion_body(prompts, n=2))).json()

    usage = answer["usage"]
    assert usage["prompt_tokens"] == 8
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert answer["cost"]["prompt"] == pytest.approx((4 * 10 + 4 * 1) / 10**6)
    assert answer["cost"]["answer"] == pytest.approx(4 * 4 * 3 / 10**6)


@pytest.mark.parametrize("prompt", ["☃ and <think>", [*b"ab", END_TURN]])
async def test_echo_repeats_the_prompt(prompt: Any) -> None:
    answer = await ask(completion_body(prompt, echo=True, max_tokens=4), Script((), "four"))

    text = prompt if isinstance(prompt, str) else plain(prompt)
    assert answer["choices"][0]["text"].startswith(text)
    assert len(answer["choices"][0]["text"]) > len(text)
    assert answer["choices"][0]["logprobs"] is None


async def test_echo_with_max_tokens_zero_scores_the_prompt() -> None:
    engine = FakeEngine(SCRIPT)
    fields = completion_body("h☃", echo=True, max_tokens=0, logprobs=2)

    answer = (await post(engine, fields)).json()

    choice, logprobs = answer["choices"][0], answer["choices"][0]["logprobs"]
    assert (choice["text"], choice["finish_reason"]) == ("h☃", "length")
    assert logprobs["tokens"] == ["h", "\ufffd", "\ufffd", "\ufffd"]
    assert logprobs["token_logprobs"] == [None, 0.0, 0.0, 0.0]
    assert logprobs["text_offset"] == [0, 1, 1, 1]
    assert logprobs["top_logprobs"][0] is None
    assert (answer["usage"]["completion_tokens"], answer["usage"]["prompt_tokens"]) == (0, 4)
    assert engine.aborted.empty()


async def test_loglikelihood_requests_of_lm_eval() -> None:
    """One token is generated beyond the prompt, even if it is the end of the turn."""
    fields = completion_body([[*b"ab"], [*b"abc"]], echo=True, max_tokens=1, logprobs=1)

    answer = await ask(fields, Script((), ""))

    for choice, length in zip(answer["choices"], (2, 3), strict=True):
        logprobs = choice["logprobs"]
        assert {len(column) for column in logprobs.values()} == {length + 1}
        assert logprobs["tokens"][-1] == "<|im_end|>"
        assert choice["text"] == "abc"[:length]


@pytest.mark.parametrize("stop", [None, "is"])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("tokens_per_delta", [1, 3])
async def test_a_stream_adds_up_to_the_whole_response(
    stop: str | None, echo: bool, tokens_per_delta: int
) -> None:
    script = Script(("one ☃ is",), "\n\nIt is ☃.")
    fields = completion_body(
        [OPEN, "hi"], n=2, logprobs=2, echo=echo, stop=stop, return_token_ids=True
    )

    async def answered(**more: Any) -> httpx.Response:
        engine = FakeEngine(script, tokens_per_delta=tokens_per_delta)
        return await post(engine, fields | more)

    whole = (await answered()).json()["choices"]
    events = parse_events((await answered(stream=True)).text)[:-1]

    for choice in whole:
        mine = [one.choice for one in events if one.choice["index"] == choice["index"]]
        logprobs = [part["logprobs"] for part in mine if part["logprobs"]]
        for name, column in choice["logprobs"].items():
            assert [each for part in logprobs for each in part[name]] == column
        assert "".join(part["text"] for part in mine) == choice["text"]
        ids = [token for part in mine for token in part.get("token_ids", [])]
        assert ids == choice["token_ids"]
        assert mine[0]["prompt_token_ids"] == choice["prompt_token_ids"]
        length = len(ids) + echo * len(choice["prompt_token_ids"])
        assert len(choice["logprobs"]["tokens"]) == length


async def test_text_offsets_point_into_the_text() -> None:
    script = Script(("one ☃",), "It is é.")
    choice = (await ask(completion_body(OPEN, logprobs=0, echo=True), script))["choices"][0]

    logprobs = choice["logprobs"]
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        if token == "<|im_end|>" and offset == len(choice["text"]):
            continue
        assert token == "\ufffd" or choice["text"][offset:].startswith(token)
    assert all(len(top or {}) <= 1 for top in logprobs["top_logprobs"])


@given(st.text(), st.lists(st.integers(0, 3)))
def test_text_offsets_count_characters(text: str, cuts: list[int]) -> None:
    offsets = TextOffsets(lambda token: bytes([token]), ())

    begins = [offsets.next(byte) for byte in text.encode()]

    assert offsets.end == len(text)
    assert begins == [at for at, letter in enumerate(text) for _ in letter.encode()]


def test_tokens_added_before_a_prompt_have_offset_zero() -> None:
    codec = ByteCodec(FakeEngine().model.markers, opens=True)
    logprobs = TextLogprobs(1, codec.token_bytes, (), "ab")

    rows = logprobs.prompt_rows(
        [END_TURN, *b"ab"], [TokenLogprob(ord(each), -1.0, ()) for each in "ab"]
    )

    assert columns(rows)["text_offset"] == [0, 0, 1]
    assert columns(logprobs.next_rows([TokenLogprob(33, -1.0, ())]))["text_offset"] == [2]


async def test_prompt_logprobs() -> None:
    engine = FakeEngine(Script((), "four"))
    fields = completion_body(["ab", "a"], n=2, prompt_logprobs=1, logprobs=0)

    choices = (await post(engine, fields)).json()["choices"]

    b = {"logprob": 0.0, "rank": 1, "decoded_token": "b"}
    assert [choice["prompt_logprobs"] for choice in choices] == [[None, {"98": b}]] * 2 + [
        [None]
    ] * 2
    asked_for = [job.sampling.prompt_logprobs for job in engine.jobs]
    assert asked_for == [1, None, 1, None]


async def test_no_logprobs_unless_requested() -> None:
    engine = FakeEngine(SCRIPT)

    await post(engine, completion_body(OPEN, echo=True, n=2))

    assert {job.sampling.prompt_logprobs for job in engine.jobs} == {None}
    assert {job.sampling.top_logprobs for job in engine.jobs} == {None}


@pytest.mark.parametrize(("prompt", "tokens"), [(OPEN, len(RAW) + 40), ("hi", 16)])
async def test_a_prompt_that_opens_a_thinking_has_the_default_max_tokens_of_a_chat(
    prompt: str, tokens: int
) -> None:
    engine = FakeEngine(Script(("x" * 30,), "y" * 99), context_length=200)

    answer = (await post(engine, {"model": "fake", "prompt": prompt})).json()

    (job,) = engine.jobs
    opened = job.budget.opened
    assert job.sampling.max_tokens == (200 - len(job.prompt_ids) if opened else 16)
    assert answer["choices"][0]["thinking"]["tokens"] == (30 if opened else 0)
    assert answer["choices"][0]["finish_reason"] == ("stop" if opened else "length")


async def test_a_small_max_tokens_is_spent_on_the_answer() -> None:
    answer = await ask(
        completion_body(OPEN, max_tokens=16, max_thinking_tokens=8), Script(("xx",), "y" * 99)
    )

    choice = answer["choices"][0]
    assert choice["text"] == "</think>" + "y" * 15
    assert choice["thinking"]["clamped"]


async def test_a_failed_list_is_aborted_as_a_whole() -> None:
    engine = FakeEngine(SCRIPT, die_after=2)

    response = await post(engine, completion_body(["hi", OPEN]))

    assert response.status_code == 503
    await asyncio.wait_for(engine.aborted.get(), 10)


@pytest.mark.parametrize("end", [END_THINK, END_TURN])
async def test_a_list_may_mix_token_ids_and_texts(end: int) -> None:
    answer = await ask(completion_body(["hi", [*b"a", end]], max_tokens=4), Script((), "four"))

    assert [choice["text"] for choice in answer["choices"]] == ["four", "four"]
