"""One question put to a server: what is sent, what is made of the answer, what ends a run."""

from typing import Any

import httpx
import pytest

from proctor.evaluation.client import RequestRefused, ServerClient, TokenCountMismatch, request
from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.scorers import load_scorer
from proctor.evaluation.tasks import Question
from tests.evaluation.making import CONFIG, response

CAP = Condition(Kind.CAP, 5)
QUESTION = Question("q", "0 + 1?", "1")
FOREIGN = RunConfig("m", "t", "{question}", "numeric", 0.6, 0.95, 1, "thinking_token_budget")


def scored(*texts: str) -> dict[str, Any]:
    """Log probabilities of tokens of thinking, and of one of the answer."""
    return {
        "reasoning_content": [{"bytes": [*text.encode()], "logprob": -1.0} for text in texts],
        "content": [{"bytes": [49], "logprob": -0.5}, {"bytes": [], "logprob": -0.25}],
    }


def thought(text: str, **fields: Any) -> dict[str, Any]:
    told = response(**fields)
    told["choices"][0]["message"]["reasoning_content"] = text
    return told


async def ask(*answers: httpx.Response | Exception) -> AnswerRecord:
    left = [*answers]

    def answer(request: httpx.Request) -> httpx.Response:
        told = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(told, Exception):
            raise told
        return told

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(base_url="http://x/v1", transport=transport) as client:
        return await ServerClient(client, CONFIG, load_scorer("numeric")).ask(CAP, QUESTION, 0)


def told(**fields: Any) -> httpx.Response:
    return httpx.Response(200, json=response(**fields))


def test_a_request_has_all_that_the_run_holds_fixed() -> None:
    condition = Condition(Kind.CONTINUATIONS, 2)
    assert request(CONFIG, condition, QUESTION, 3) == {
        "model": "m",
        "messages": [{"role": "user", "content": "0 + 1?"}],
        "temperature": 0.6,
        "top_p": 0.95,
        "seed": 4,
        "max_thinking_tokens": -1,
        "thinking": {"continuations": 2, "logprobs": True},
        "logprobs": True,
    }


@pytest.mark.parametrize(
    ("config", "condition", "own"),
    [
        (FOREIGN, CAP, {"thinking_token_budget": 5}),
        (FOREIGN, Condition(Kind.CAP, -1), {}),
        (CONFIG, Condition(Kind.EFFORT, "low"), {"reasoning_effort": "low"}),
    ],
)
def test_a_server_of_another_make_gets_no_field_of_ours(
    config: RunConfig, condition: Condition, own: dict[str, Any]
) -> None:
    asked = request(config, condition, QUESTION, 0)
    common = {"model", "messages", "temperature", "top_p", "seed"}
    assert {name: asked[name] for name in asked.keys() - common} == own


async def test_an_answer_is_judged_and_kept() -> None:
    row = await ask(httpx.Response(200, json=thought(" a\u20ac", logprobs=scored(" a", "\u20ac"))))

    assert (row.score, row.normalized_answer, row.tokens, row.generated) == (1, "1", 2, 3)
    assert row.confidence == -0.375
    assert "logprobs" not in row.response["choices"][0]


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(404), httpx.Response(200, text="<html>"), httpx.Response(200, json={})],
)
async def test_a_server_that_knows_no_prices_is_no_obstacle(answer: httpx.Response) -> None:
    transport = httpx.MockTransport(lambda _: answer)
    async with httpx.AsyncClient(base_url="http://x/v1", transport=transport) as client:
        client = ServerClient(client, CONFIG, load_scorer("numeric"))
        assert await client.price(CAP, QUESTION) == {}


async def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("proctor.evaluation.client.sleep", note)
    row = await ask(
        httpx.Response(429, headers={"retry-after": "3"}),
        httpx.Response(503, headers={"retry-after": "soon"}),
        httpx.ConnectError("refused"),
        told(),
    )

    assert row.score == 1
    # The server's 3 s, and then at least twice what was waited for before.
    assert all(low <= wait <= 1.25 * low for low, wait in zip((3, 6, 12), waits, strict=True))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(400, json={"error": {"message": "no"}}), "400: .*no"),
        (httpx.Response(503, text="gone"), "503: gone"),
        (httpx.ConnectError("refused"), "cannot be reached"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(200, json={"choices": []}), "cannot be read"),
        (httpx.Response(200, json=[]), "cannot be read"),
        (httpx.Response(200, json={"choices": [{"message": {}}]}), "cannot be read"),
    ],
)
async def test_what_the_server_does_not_answer(
    answer: httpx.Response | Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr("proctor.evaluation.client.sleep", at_once)
    with pytest.raises(RequestRefused, match=message):
        await ask(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (thought("abc", logprobs=scored("a", "b", "c")), "counts 2 thinking tokens, but sent 3"),
        (thought("ab", logprobs=scored("a", "c")), "differ from the text of the thinking"),
    ],
)
async def test_wrong_accounts_end_the_run(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenCountMismatch, match=message):
        await ask(httpx.Response(200, json=answer))
