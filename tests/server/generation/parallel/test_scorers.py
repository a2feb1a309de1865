"""Answers that a scorer chooses: `best_by_key`."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

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
from tests.server.harness import CHAT, body, client, free_port
from tests.server.sockets import cancel_after, connections_to
from tests.waiting import PATIENCE

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
    async def respond(request: web.BaseRequest) -> web.Response:
        sent = await request.json()
        assert (request.path, sent["messages"]) == ("/score", MESSAGES)
        return web.json_response({"scores": [len(answer) for answer in sent["answers"]]})

    async with RawTestServer(respond) as server:
        scorer = HttpScorer(str(server.make_url("/score")), PATIENCE)
        assert await BoundedScorer(scorer, PATIENCE).score(MESSAGES, ["a", "bc"]) == [1, 2]


SCORES = b'{"scores": [1, 2]}'


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, SCORES, "status 500"),
        (302, SCORES, "status 302"),
        (200, b"no JSON", "no list"),
        (200, b'{"scores": ["high", "low"]}', "no list"),
        (200, b'{"scores": [1, 2, 3]}', "2 finite scores"),
    ],
)
async def test_a_url_that_does_not_score(status: int, body: bytes, reason: str) -> None:
    async def respond(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, body=body, headers={"location": "/elsewhere"})

    async with RawTestServer(respond) as server:
        scorer = HttpScorer(str(server.make_url("/")), PATIENCE)
        with pytest.raises(ScorerFailed, match=reason):
            await BoundedScorer(scorer, PATIENCE).score(MESSAGES, ["a", "bc"])


async def test_nothing_scores_at_a_url() -> None:
    scorer = HttpScorer(f"http://127.0.0.1:{free_port()}/", PATIENCE)
    with pytest.raises(ScorerFailed, match="ClientConnectorError"):
        await BoundedScorer(scorer, PATIENCE).score(MESSAGES, ["a", "bc"])


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(ConnectionError):
        await reader.read()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_scorer_that_does_not_respond_is_left_without_a_connection(scheme: str) -> None:
    """Over TLS, while its handshake is waited for."""
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"{scheme}://127.0.0.1:{port}/"
        for steps in range(20):
            scoring = HttpScorer(url, PATIENCE).score(MESSAGES, ["a"])
            await cancel_after(asyncio.create_task(scoring), steps)
            assert connections_to(port) == 0

        for scorer in (
            BoundedScorer(HttpScorer(url, PATIENCE), 0.01),
            BoundedScorer(HttpScorer(url, 0.01), PATIENCE),
        ):
            with pytest.raises(ScorerFailed, match="took longer"):
                await scorer.score(MESSAGES, ["a"])
        await asyncio.sleep(0)
        assert connections_to(port) == 0


async def test_scores_are_finite() -> None:
    scorer = FunctionScorer(lambda messages, answers: [float("nan")] * len(answers))
    with pytest.raises(ScorerFailed, match="2 finite scores"):
        await BoundedScorer(scorer, 1).score(MESSAGES, ["a", "b"])
