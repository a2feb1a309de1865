"""Answers that a scorer chooses: `best_by_key`."""

import asyncio
import json
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import httpx
import pytest

from proctor.server.config.budgets import ScorerSettings
from proctor.server.config.section import ConfigError
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.generation.parallel import scorers
from proctor.server.generation.parallel.scorers import (
    BoundedScorer,
    FunctionScorer,
    HttpScorer,
    ScorerFailed,
    open_scorer,
)
from tests.server.harness import CHAT, body, client

MESSAGES = [{"role": "user", "content": "hi"}]
ANSWERS = ("three", "one", "one", "four!")


def script(job: Job) -> Script:
    return Script(("Hm.",), ANSWERS[int(job.id.rsplit("-", 1)[1])])


def by_length(messages: Sequence[Any], answers: Sequence[str]) -> list[float]:
    assert messages == MESSAGES
    return [float(len(answer)) for answer in answers]


async def by_length_later(messages: Sequence[Any], answers: Sequence[str]) -> list[float]:
    await asyncio.sleep(0)
    return by_length(messages, answers)


def failing(messages: Sequence[Any], answers: Sequence[str]) -> list[float]:
    raise RuntimeError("no solver")


def too_few(messages: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [1.0]


async def hanging(messages: Sequence[Any], answers: Sequence[str]) -> list[float]:
    await asyncio.Event().wait()
    return []


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that installs a function of this module as the scorer `mine`."""

    def installed(name: str) -> None:
        point = EntryPoint("mine", f"{__name__}:{name}", scorers.GROUP)
        monkeypatch.setattr(scorers, "entry_points", lambda group: EntryPoints([point]))

    return installed


async def ask(**settings: Any) -> Any:
    thinking = {"parallel": {"chains": 4, "method": "best_by_key"}}
    async with client(FakeEngine(script), **settings) as http:
        response = await http.post(CHAT, json=body(max_thinking_tokens=80, thinking=thinking))
    return response.json()


@pytest.mark.parametrize("name", ["by_length", "by_length_later"])
async def test_the_answer_that_the_scorer_prefers(
    install: Callable[[str], None], name: str
) -> None:
    install(name)
    answer = await ask(answer_scorer={"entry_point": "mine"})
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "three"  # as long as "four!", and earlier
    votes = choice["thinking"]["votes"]
    assert votes["stopped"] == 0
    assert "fallback" not in votes
    assert [(each["answer"], each["weight"]) for each in votes["answers"]] == [
        ("three", 5.0),
        ("four!", 5.0),
        ("one", 3.0),
    ]


@pytest.mark.parametrize("name", ["failing", "too_few", "hanging"])
async def test_the_chains_vote_if_the_scorer_fails(
    install: Callable[[str], None], name: str
) -> None:
    install(name)
    answer = await ask(answer_scorer={"entry_point": "mine", "timeout_seconds": 0.05})
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "one"
    assert choice["thinking"]["votes"]["method"] == "best_by_key"
    assert choice["thinking"]["votes"]["fallback"] == "vote"


async def test_without_a_scorer_the_method_is_refused() -> None:
    answer = await ask()
    assert answer["error"]["param"] == "thinking.parallel.method"


def test_an_unknown_scorer_is_named() -> None:
    with pytest.raises(ConfigError, match="Unknown scorer 'other'"):
        open_scorer(ScorerSettings(entry_point="other"))


async def test_a_scorer_at_a_url() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content)
        assert sent["messages"] == MESSAGES
        return httpx.Response(200, json={"scores": [len(answer) for answer in sent["answers"]]})

    scorer = HttpScorer("http://scorer.test/score", 1, httpx.MockTransport(respond))
    assert await BoundedScorer(scorer, 1).score(MESSAGES, ["a", "bc"]) == [1, 2]


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500),
        httpx.Response(302, headers={"location": "http://elsewhere.test/"}),
        httpx.Response(200, content=b"no JSON"),
        httpx.Response(200, json={"scores": ["high", "low"]}),
        httpx.Response(200, json={"scores": [1, 2, 3]}),
    ],
)
async def test_a_url_that_does_not_score(response: httpx.Response) -> None:
    scorer = HttpScorer("http://scorer.test/", 1, httpx.MockTransport(lambda _: response))
    with pytest.raises(ScorerFailed):
        await BoundedScorer(scorer, 1).score(MESSAGES, ["a", "bc"])


async def test_scores_are_finite() -> None:
    scorer = FunctionScorer(lambda messages, answers: [float("nan")] * len(answers))
    with pytest.raises(ScorerFailed, match="2 finite scores"):
        await BoundedScorer(scorer, 1).score(MESSAGES, ["a", "b"])
