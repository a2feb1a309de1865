"""Probes beside a running choice, over a scripted engine."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from proctor.server.config.budgets import DEFAULT_TIERS
from proctor.server.engines.base import Delta, Finish, Job
from proctor.server.engines.fake import THINK, FakeEngine, Script
from proctor.server.errors import EngineUnavailable
from tests.server.harness import CHAT, body, client, with_timeout

SENTENCES = tuple(f"Step {number} is done.\n" for number in range(12))
EXIT: dict[str, Any] = {"method": "answer", "answer": "number", "every": 16, "patience": 2}


class ProbedEngine(FakeEngine):
    """An engine whose choices wait for their probes, which have answers of their own.

    Attributes:
        probes: the jobs of the probes.
    """

    def __init__(self, *answers: str, **options: Any) -> None:
        super().__init__(Script(("".join(SENTENCES),), "7"), before_token=self._wait, **options)
        self._answers = list(answers)
        self.probes: list[Job] = []
        self.running = 0

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        if "-probe-" not in job.id:
            async for delta in super().generate(job):
                yield delta
            return
        self.probes.append(job)
        self.running += 1
        assert self.running == 1  # one at a time
        try:
            await asyncio.sleep(0)
            answer = self._answers.pop(0) if self._answers else "none"
            if answer == "lost":
                raise EngineUnavailable("the engine lost it")
            if answer == "broken":
                raise RuntimeError("broken")
            yield Delta(list(answer.encode()), Finish.STOP)
        finally:
            self.running -= 1
            self._records[job.id] = self._records[next(iter(self._records))]

    async def _wait(self, job: Job, position: int) -> None:
        # The choice is as slow as an engine: its probes have time to finish.
        for _ in range(20):
            await asyncio.sleep(0)


async def ask(engine: FakeEngine, early_exit: dict[str, Any] = EXIT, **fields: Any) -> Any:
    request = body(max_thinking_tokens=400, thinking={"early_exit": early_exit, **fields})
    async with client(engine) as http:
        response = await with_timeout(http.post(CHAT, json=request))
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_thinking_ends_after_a_sentence_once_the_answer_is_settled() -> None:
    engine = ProbedEngine("3", "is 5", "5", "5")
    answer = await ask(engine)
    (choice,) = answer["choices"]
    thinking = choice["thinking"]
    assert thinking["end_reason"] == "settled"
    text = choice["message"]["reasoning_content"]
    assert "".join(SENTENCES).startswith(text)
    assert text.endswith("done.")
    assert len(engine.probes) == 3
    assert thinking["probe_tokens"] == len("3" + "is 5" + "5")
    usage = answer["usage"]
    spent = thinking["tokens"] + thinking["probe_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == spent
    assert usage["completion_tokens"] == spent + 3  # end marker, answer, end of turn


async def test_a_probe_continues_the_thinking_up_to_the_end_of_a_sentence() -> None:
    engine = ProbedEngine()
    await ask(engine, {**EXIT, "opening": "It is "})
    end = engine.model.markers.end
    thinking = "".join(SENTENCES).encode()
    assert len(engine.probes) > 1
    last = 0
    for probe in engine.probes:
        prompt = bytes(token for token in probe.prompt_ids if token < THINK)
        assert prompt.endswith(b"It is ")
        assert probe.prompt_ids[-len(b"It is ") - 1] == end[0]
        prefix = prompt.removesuffix(b"It is ").split(b"assistant\n\n")[-1]
        assert thinking.startswith(prefix)
        assert prefix.endswith((b".", b"\n"))
        assert len(prefix) - last >= EXIT["every"] or not last
        last = len(prefix)
        assert probe.budget.maximum == 0


async def test_probes_stop_at_their_allowance() -> None:
    engine = ProbedEngine(*(f"{number:016}" for number in range(50)))
    answer = await ask(engine)
    thinking = answer["choices"][0]["thinking"]
    assert thinking["probe_tokens"] == 48  # an eighth of 400, in whole probes
    assert thinking["tokens"] + thinking["probe_tokens"] <= thinking["max_tokens"] == 400


@pytest.mark.parametrize(("problem", "reported"), [("lost", False), ("broken", True)])
async def test_a_probe_that_fails_does_not_fail_the_request(
    problem: str, reported: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await ask(ProbedEngine(problem, problem))
    assert answer["choices"][0]["message"]["content"] == "7"
    assert answer["choices"][0]["thinking"]["end_reason"] == "natural"
    assert ("a probe failed" in caplog.text) is reported


async def test_probes_give_way_to_requests() -> None:
    engine = ProbedEngine("5", "5", "5")
    request = body(max_thinking_tokens=400, thinking={"early_exit": EXIT})
    async with client(engine, limits={"max_running": 1}) as http:
        response = await with_timeout(http.post(CHAT, json=request))
    assert response.json()["choices"][0]["thinking"]["end_reason"] == "natural"
    assert not engine.probes


async def test_a_budget_without_room_for_probes_has_none() -> None:
    engine = ProbedEngine("5", "5", "5")
    async with client(engine) as http:
        request = body(max_thinking_tokens=40, thinking={"early_exit": EXIT})
        response = await with_timeout(http.post(CHAT, json=request))
    thinking = response.json()["choices"][0]["thinking"]
    assert (thinking["tokens"], thinking["probe_tokens"]) == (40, 0)


async def test_a_tier_has_an_early_exit_that_a_request_can_change() -> None:
    low = {"name": "low", "max_tokens": 400, "early_exit": EXIT}
    tiers = [low if tier.name == "low" else tier.model_dump() for tier in DEFAULT_TIERS]
    reasons = []
    for options in ({}, {"early_exit": {"method": "off"}}, {"early_exit": {"patience": 4}}):
        engine = ProbedEngine("5", "5", "5")
        async with client(engine, tiers=tiers) as http:
            request = body(budget_tier="low", thinking=options)
            response = await with_timeout(http.post(CHAT, json=request))
        reasons.append(response.json()["choices"][0]["thinking"]["end_reason"])
    assert reasons == ["settled", "natural", "natural"]


async def test_there_is_no_probe_beyond_the_context() -> None:
    engine = ProbedEngine("5", "5", "5", context_length=500)
    answer = await ask(engine, {**EXIT, "opening": "x" * 256})
    assert answer["choices"][0]["message"]["content"] == "7"
    longest = max((len(probe.prompt_ids) for probe in engine.probes), default=0)
    assert longest + 16 <= 500


async def test_a_disconnect_aborts_the_probe_too() -> None:
    """A cancelled choice leaves no probe behind."""
    entered, engine = asyncio.Event(), ProbedEngine()

    async def hang(job: Job) -> AsyncGenerator[Delta, None]:
        entered.set()
        engine.running += 1
        try:
            await asyncio.Event().wait()
            yield Delta([])
        finally:
            engine.running -= 1

    generate = engine.generate
    engine.generate = (  # type: ignore[method-assign]
        lambda job: hang(job) if "-probe-" in job.id else generate(job)
    )
    request = asyncio.create_task(ask(engine))
    await with_timeout(entered.wait())
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert engine.running == 0
