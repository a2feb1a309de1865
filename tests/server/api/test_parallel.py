"""Several chains of thought for one answer: `thinking.parallel`."""

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from random import Random
from typing import Any

import httpx
import pytest

from proctor.budget import EndReason, Move
from proctor.server.engines.base import Delta, Job
from proctor.server.engines.fake import END_THINK, FakeEngine, Script
from proctor.server.engines.tool_calls import BoundTools, CallReader, ToolChoice
from proctor.server.errors import UnsupportedRequest
from tests.server.harness import (
    CHAT,
    Gate,
    body,
    client,
    merge_deltas,
    parse_events,
    running_server,
    with_timeout,
)

END = 1
"""The tokens of an end of turn."""


class CountingEngine(FakeEngine):
    """A fake engine that counts what it generates for each chain.

    Attributes:
        tokens: the tokens of each chain.
        granted: set when the maximum of a chain has been moved, by both.
    """

    def __init__(self, script: Script | Callable[[Job], Script], **options: Any) -> None:
        super().__init__(script, **options)
        self.tokens: dict[str, list[int]] = defaultdict(list)
        self.granted: dict[tuple[int, int], asyncio.Event] = defaultdict(asyncio.Event)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        stream = super().generate(job)
        try:
            async for delta in stream:
                self.tokens[job.id] += delta.token_ids
                yield delta
        finally:
            await stream.aclose()

    async def move_maximum(
        self, job: Job, target: int | None, reason: EndReason | None = None
    ) -> Move | None:
        move = await super().move_maximum(job, target, reason)
        if move is not None:
            self.granted[chain_of(job), move.maximum].set()
        return move

    @property
    def count(self) -> int:
        """The number of tokens of all chains."""
        return sum(map(len, self.tokens.values()))

    @property
    def thinking(self) -> int:
        """The number of thinking tokens of all chains: those before the end marker."""
        return sum(
            tokens.index(END_THINK) if END_THINK in tokens else len(tokens)
            for tokens in self.tokens.values()
        )


class UnreadTools:
    """A tool call format for requests that are rejected."""

    def bind(self, choice: ToolChoice) -> BoundTools:
        return BoundTools(None, self._reader)

    def _reader(self) -> CallReader:
        raise AssertionError("the request should have been rejected")


def chain_of(job: Job) -> int:
    return int(job.id.rsplit("-", 1)[1])


def scripts(*chains: Script) -> Callable[[Job], Script]:
    return lambda job: chains[chain_of(job)]


def parallel(chains: int = 3, **fields: Any) -> dict[str, Any]:
    options = {"chains": chains, "answer": "number"} | fields.pop("options", {})
    return body(thinking={"parallel": options}, **{"max_thinking_tokens": 300, **fields})


async def in_turn(job: Job, position: int) -> None:
    """Let all chains generate one token after the other."""
    await asyncio.sleep(0)


async def test_the_answer_of_the_majority() -> None:
    engine = CountingEngine(
        scripts(
            Script(("Rash.",), "It is 7."),
            Script(("Some thought.",), "The answer is 42."),
            Script(("Much more thought.",), "So it must be 42"),
        ),
        before_token=in_turn,
    )
    async with client(engine) as http:
        response = await http.post(CHAT, json=parallel())

    answer = response.json()
    (choice,) = answer["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "The answer is 42.",
        "reasoning_content": "Some thought.",
    }
    assert choice["finish_reason"] == "stop"
    assert choice["thinking"]["tokens"] == len("Some thought.")
    assert choice["thinking"]["max_tokens"] == 300
    assert choice["thinking"]["end_reason"] == "natural"
    assert choice["thinking"]["votes"] == {
        "method": "vote",
        "chains": 3,
        "stopped": 0,
        "tokens": engine.thinking,
        "answers": [
            {"answer": "42", "votes": 2, "weight": 2.0},
            {"answer": "7", "votes": 1, "weight": 1.0},
        ],
    }
    prompt = len(engine.jobs[0].prompt_ids)
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": engine.count,
        "total_tokens": prompt + engine.count,
        "completion_tokens_details": {"reasoning_tokens": engine.thinking},
    }


async def test_the_chains_have_seeds_of_their_own() -> None:
    engine = FakeEngine()
    async with client(engine) as http:
        await http.post(CHAT, json=parallel(seed=7))
    assert [job.sampling.seed for job in engine.jobs] == [7, 8, 9]
    assert len({job.prompt_ids for job in engine.jobs}) == 1


@pytest.mark.parametrize("method", ["vote", "first_agreement"])
async def test_a_decided_vote_stops_the_other_chains(method: str) -> None:
    never = asyncio.Event()

    async def block_the_last(job: Job, position: int) -> None:
        if (chain_of(job), position) == (2, 4):
            await never.wait()

    engine = CountingEngine(Script(("A thought.",), "1"), before_token=block_the_last)
    async with client(engine) as http:
        response = await with_timeout(http.post(CHAT, json=parallel(options={"method": method})))
        metrics = (await http.get("/metrics")).text

    assert await with_timeout(engine.aborted.get()) == engine.jobs[2].id
    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == "1"
    assert choice["thinking"]["votes"]["stopped"] == 1
    assert response.json()["usage"]["completion_tokens"] == engine.count
    assert choice["thinking"]["votes"]["tokens"] == engine.thinking == 2 * len("A thought.") + 4
    assert f'proctor_votes_total{{method="{method}"}} 1.0' in metrics
    assert f'proctor_stopped_chains_total{{method="{method}"}} 1.0' in metrics
    assert 'proctor_requests_total{end_reason="natural",status="200",tier="custom"} 1.0' in metrics


WAITS = {(1, 5): (1, 27), (2, 5): (2, 27), (2, 25): (2, 49)}
"""By chain and position, a chain and the maximum that it is to be granted."""


async def test_what_a_chain_does_not_think_goes_to_the_others() -> None:
    engine: CountingEngine

    async def wait_for_more(job: Job, position: int) -> None:
        chain, maximum = WAITS.get((chain_of(job), position), (0, 0))
        if maximum:
            await engine.granted[chain, maximum].wait()

    engine = CountingEngine(
        scripts(Script(("short",), "1"), Script(("longer",), "2"), Script(("x" * 100,), "3")),
        before_token=wait_for_more,
    )
    async with client(engine) as http:
        request = parallel(3, max_thinking_tokens=60)
        request["thinking"] |= {"landing": "hard", "on_loop": "off"}
        response = await with_timeout(http.post(CHAT, json=request))

    assert engine.thinking == 60
    assert response.json()["choices"][0]["thinking"]["votes"]["tokens"] == 60


async def test_the_budget_holds_for_all_chains_together_in_any_order() -> None:
    rng, timing = Random(20250131), Random(2025)

    async def at_random(job: Job, position: int) -> None:
        for _ in range(timing.randrange(4)):
            await asyncio.sleep(0)

    def random_script(job: Job) -> Script:
        thoughts = tuple("ab c. " * timing.randrange(12) for _ in range(3))
        return Script(thoughts, str(timing.randrange(3)) * timing.randint(1, 40))

    engine = CountingEngine(random_script, before_token=at_random, context_length=600)
    async with client(engine) as http:
        for _ in range(60):
            engine.tokens.clear()
            chains = rng.randint(2, 6)
            most = rng.choice([0, rng.randint(chains, 200)])
            request = parallel(
                chains,
                max_thinking_tokens=most,
                # Half of a share leaves room for the answer reserve.
                min_thinking_tokens=rng.randint(0, most // chains // 2),
                max_tokens=most + rng.randint(20, 40) * chains,
            )
            if rng.random() < 0.3 and most:
                request["thinking"]["early_exit"] = {"method": "answer", "every": 4}
            response = await with_timeout(http.post(CHAT, json=request))
            assert response.status_code == 200, response.text
            usage, (choice,) = response.json()["usage"], response.json()["choices"]
            thinking = usage["completion_tokens_details"]["reasoning_tokens"]
            assert choice["thinking"]["votes"]["tokens"] == thinking <= most
            assert usage["completion_tokens"] <= request["max_tokens"]
            is_cut = choice["finish_reason"] == "length"
            if not is_cut and "early_exit" not in request["thinking"]:
                assert usage["completion_tokens"] <= engine.count


class DoubtfulEngine(FakeEngine):
    """A fake engine whose tokens of the chain 0 and 1 are improbable."""

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        logprob = math.log(0.2) if chain_of(job) < 2 else 0.0
        async with aclosing(super().generate(job)) as stream:
            async for delta in stream:
                scores = [score._replace(logprob=logprob) for score in delta.logprobs]
                yield delta._replace(logprobs=scores)


@pytest.mark.parametrize(("method", "answer"), [("vote", "1"), ("confidence", "2")])
async def test_confidence_is_the_weight_of_a_vote(method: str, answer: str) -> None:
    engine = DoubtfulEngine(scripts(*(Script(("Hm.",), digit) for digit in "112")))
    async with client(engine) as http:
        response = await http.post(CHAT, json=parallel(options={"method": method}))
    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == answer
    assert choice["logprobs"] is None
    weights = {each["answer"]: each["weight"] for each in choice["thinking"]["votes"]["answers"]}
    expected = {"2": 1.0, "1": pytest.approx(0.4)} if method == "confidence" else {"1": 2.0}
    assert weights == expected


async def test_max_tokens_holds_for_all_chains_together() -> None:
    engine = CountingEngine(Script(("x" * 20,), "9" * 500), before_token=in_turn)
    async with client(engine) as http:
        response = await http.post(CHAT, json=parallel(max_thinking_tokens=30, max_tokens=150))

    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["thinking"]["votes"]["answers"] == []
    assert response.json()["usage"]["completion_tokens"] == 150
    assert len(choice["message"]["content"]) == 150 // 3 - 10 - 1


async def test_chains_without_thinking_vote_on_their_answers() -> None:
    engine = CountingEngine(scripts(*(Script((), answer) for answer in "5775")))
    async with client(engine) as http:
        response = await http.post(CHAT, json=parallel(4, max_thinking_tokens=0))

    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == "5"
    assert choice["message"]["reasoning_content"] is None
    assert choice["thinking"]["end_reason"] == "disabled"
    assert choice["thinking"]["votes"]["tokens"] == 0
    assert response.json()["usage"]["completion_tokens"] == 4 * (len("5") + END)
    assert not any(job.moved_for for job in engine.jobs)


async def test_a_stream_has_the_winner_once_the_vote_is_decided() -> None:
    engine = CountingEngine(
        scripts(Script(("One.",), "1"), Script(("Another one.",), "2"), Script(("Two.",), "2.0")),
        before_token=in_turn,
    )
    async with client(engine) as http:
        response = await http.post(
            CHAT,
            json=parallel(
                stream=True,
                stream_options={"include_usage": True, "continuous_usage_stats": True},
            ),
        )

    events = parse_events(response.text)
    chunks = [event.data for event in events if event.data != "[DONE]"]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert {choice["index"] for choice in choices} == {0}
    message = merge_deltas(choice["delta"] for choice in choices)
    assert message["reasoning_content"] == "Two."
    assert message["content"] == "2.0"
    progress = [choice["thinking"] for choice in choices if "thinking" in choice]
    assert progress[0]["max_tokens"] == 300
    assert progress[-1]["votes"]["answers"][0] == {"answer": "2", "votes": 2, "weight": 2.0}
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == engine.count


async def test_a_summary_of_the_vote_in_the_place_of_the_thinking() -> None:
    engine = FakeEngine(scripts(*(Script(("Hm.",), answer) for answer in "121")))
    async with client(engine) as http:
        response = await http.post(
            CHAT, json=parallel(options={"keep": "summary"}, reasoning_format="tags")
        )
    (choice,) = response.json()["choices"]
    summary = "Votes of 3 chains of thought:\n- 1: 2\n- 2: 1"
    assert choice["message"]["content"] == f"<think>{summary}</think>1"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"temperature": 0}, "temperature"),
        ({"top_k": 1}, "top_k"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"max_thinking_tokens": 2}, "thinking.parallel.chains"),
        ({"min_thinking_tokens": 150}, "thinking.parallel.chains"),
        ({"min_thinking_tokens": 90, "max_tokens": 200}, "thinking.parallel.chains"),
        ({"max_tokens": 2}, "max_tokens"),
        ({"chains": 17}, "thinking.parallel.chains"),
        ({"options": {"method": "best"}}, "thinking.parallel.method"),
        ({"options": {"keep": "summary"}, "return_token_ids": True}, "return_token_ids"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
async def test_what_cannot_be_combined(fields: Mapping[str, Any], param: str) -> None:
    async with client(FakeEngine(tools=UnreadTools())) as http:
        response = await http.post(CHAT, json=parallel(**fields))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


class LosingEngine(CountingEngine):
    """A fake engine that ends the thinking of the chains 0 and 1 after 20 tokens, as lost.

    The others think no further than 90 tokens before they may think `granted` tokens.
    """

    def __init__(self, *chains: Script, granted: int | None = None) -> None:
        super().__init__(scripts(*chains), before_token=self._lose)
        self._awaited = granted

    async def check(self, job: Job) -> None:
        assert job.confidence is not None
        await super().check(replace(job, early_exit=None))

    async def _lose(self, job: Job, position: int) -> None:
        await in_turn(job, position)
        chain = chain_of(job)
        if chain < 2 and position == 20:
            await self.move_maximum(job, None, EndReason.UNSURE)
        elif chain >= 2 and position == 90 and self._awaited is not None:
            await with_timeout(self.granted[chain, self._awaited].wait())


def watched(chains: int, **fields: Any) -> dict[str, Any]:
    """Return a request whose chains may be lost."""
    request = parallel(chains, **fields)
    request["thinking"]["early_exit"] = {"method": "confidence", "floor": 3, "every": 8}
    request["thinking"] |= {"on_loop": "off", "landing": "hard"}
    return request


@pytest.mark.parametrize("method", ["vote", "first_agreement", "confidence"])
async def test_chains_that_are_lost_leave_their_tokens_and_do_not_decide(method: str) -> None:
    """Two of four are lost, and agree; of the others, each thinks on with what they leave."""
    long = Script(("x" * 150,), "2")
    engine = LosingEngine(*[Script(("x" * 90,), "1")] * 2, long, long, granted=180)
    request = watched(4, options={"method": method}, max_thinking_tokens=400)
    async with client(engine) as http:
        response = await http.post(CHAT, json=request)

    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == "2"
    assert choice["thinking"]["tokens"] == 150
    votes = choice["thinking"]["votes"]
    assert {(each["answer"], each["weight"] > 0) for each in votes["answers"]} == {
        ("1", False),
        ("2", True),
    }
    # The other one may be stopped at its last tokens: the vote is decided.
    assert 2 * 20 + 150 < votes["tokens"] <= 2 * 20 + 2 * 150


async def test_an_answer_of_a_lost_chain_is_better_than_none() -> None:
    thinking = ("x" * 90,)
    silent = Script(thinking, "I do not know.")
    async with client(LosingEngine(Script(thinking, "1"), Script(thinking, "2"), silent)) as http:
        response = await http.post(CHAT, json=watched(3))
    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == "1"
    assert choice["thinking"]["end_reason"] == "unsure"


async def test_confidence_needs_an_engine_with_log_probabilities() -> None:
    class WithoutLogprobs(FakeEngine):
        async def check(self, job: Job) -> None:
            if job.sampling.top_logprobs is not None:
                raise UnsupportedRequest("logprobs", "'logprobs' is not supported")

    async with client(WithoutLogprobs()) as http:
        voting = await http.post(CHAT, json=parallel())
        weighing = await http.post(CHAT, json=parallel(options={"method": "confidence"}))
        asking = await http.post(CHAT, json=parallel(logprobs=True))
    assert voting.status_code == 200
    assert weighing.json()["error"]["param"] == "thinking.parallel.method"
    assert asking.json()["error"]["param"] == "logprobs"


async def test_completions_of_prompts_cannot_have_several_chains() -> None:
    request = {"model": "fake", "prompt": "x", "thinking": {"parallel": {"chains": 2}}}
    async with client(FakeEngine()) as http:
        response = await http.post("/v1/completions", json=request)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "thinking.parallel"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "x<think>", "max_tokens": 90, "budget_tier": "three"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": body()["messages"], "max_tokens": 90}),
    ],
)
async def test_other_endpoints_have_one_chain_of_a_tier(path: str, fields: dict[str, Any]) -> None:
    tier = {"name": "three", "max_tokens": 30, "parallel": {"chains": 3}}
    engine = FakeEngine()
    async with client(engine, tiers=[tier], **NO_TIERS, **DEFAULT_TIER) as http:
        response = await http.post(path, json={"model": "fake", **fields})
    assert response.status_code == 200, response.text
    assert len(engine.jobs) == 1


DEFAULT_TIER = {"default_tier": "three"}

NO_TIERS: dict[str, Any] = {
    "efforts": dict.fromkeys(("none", "minimal", "low", "medium", "high", "xhigh", "max"), "three"),
    "router": {"levels": dict.fromkeys(("none", "low", "medium", "high"), "three")},
}


@pytest.mark.parametrize(
    ("fields", "jobs"),
    [
        ({}, 3),
        ({"thinking": {"parallel": {"chains": 2}}}, 2),
        ({"thinking": {"parallel": {"chains": 1}}}, 1),
        ({"n": 2}, 2),
        ({"temperature": 0}, 1),
    ],
)
async def test_the_chains_of_a_tier(fields: dict[str, Any], jobs: int) -> None:
    tier = {"name": "three", "max_tokens": 30, "parallel": {"chains": 3, "answer": "number"}}
    engine = FakeEngine(Script(("Let me see.",), "42"))
    async with client(engine, tiers=[tier], **NO_TIERS) as http:
        response = await http.post(CHAT, json=body(budget_tier="three", **fields))
    assert response.status_code == 200
    assert len(engine.jobs) == jobs
    assert len(response.json()["choices"]) == fields.get("n", 1)
    assert ("votes" in response.json()["choices"][0]["thinking"]) is (
        jobs > 1 and "n" not in fields
    )


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_disconnect_aborts_all_chains(streamed: bool) -> None:
    gate = Gate(5)
    engine = FakeEngine(Script(("thinking away",), "x"), before_token=gate)
    async with running_server(engine) as url, httpx.AsyncClient(base_url=url) as http:
        request = http.build_request("POST", CHAT, json=parallel(stream=streamed))
        leaving = asyncio.create_task(http.send(request, stream=streamed))
        await with_timeout(gate.reached.wait())
        if streamed:
            await (await leaving).aclose()
        leaving.cancel()
        aborted = {await with_timeout(engine.aborted.get()) for _ in range(3)}
    assert aborted == {job.id for job in engine.jobs}


async def test_the_deadline_holds_for_all_chains() -> None:
    engine = FakeEngine(before_token=Gate(5))
    async with client(engine) as http:
        response = await http.post(CHAT, json=parallel(), headers={"x-request-timeout": "0.05"})
    assert response.status_code == 504
    assert {await with_timeout(engine.aborted.get()) for _ in range(3)} == {
        job.id for job in engine.jobs
    }


async def test_the_queue_counts_every_chain() -> None:
    gate = Gate(0)
    engine = FakeEngine(Script(("a",), "1"), before_token=gate)
    async with client(engine, limits={"max_running": 3}) as http:
        one = asyncio.create_task(http.post(CHAT, json=body()))
        await with_timeout(gate.reached.wait())
        three = asyncio.create_task(http.post(CHAT, json=parallel()))
        metrics = ""
        while "proctor_waiting 1.0" not in metrics:
            metrics = (await with_timeout(http.get("/metrics"))).text
        assert len(engine.jobs) == 1
        gate.opened.set()
        responses = await with_timeout(asyncio.gather(one, three))
    assert [response.status_code for response in responses] == [200, 200]
    assert len(engine.jobs) == 4


async def test_a_failure_of_the_engine_fails_the_request() -> None:
    engine = FakeEngine(Script(("a long thought",), "1"), before_token=in_turn, die_after=5)
    async with client(engine) as http:
        response = await http.post(CHAT, json=parallel())
    assert response.status_code == 503
