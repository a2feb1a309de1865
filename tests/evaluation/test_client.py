"""`ServerClient`: requests, answer records, retries, and errors that end a run."""

from typing import Any

import httpx
import pytest

from proctor.evaluation import client as client_module
from proctor.evaluation.client import RequestRefused, ServerClient, TokenCountMismatch, request
from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.options.thinking import Parallel
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.scorers import load_scorer
from proctor.evaluation.tasks import Question
from tests.evaluation.factories import CONFIG, response

CAP = Condition(Kind.CAP, 5)
QUESTION = Question("q", "0 + 1?", "1")
FOREIGN = RunConfig("m", "t", "{question}", "numeric", 0.6, 0.95, 1, "thinking_token_budget")


def logprobs_of(*texts: str) -> dict[str, Any]:
    """Return log probabilities of thinking tokens, and of two answer tokens."""
    return {
        "reasoning_content": [{"bytes": [*text.encode()], "logprob": -1.0} for text in texts],
        "content": [{"bytes": [49], "logprob": -0.5}, {"bytes": [], "logprob": -0.25}],
    }


def response_with_thinking(text: str, **fields: Any) -> dict[str, Any]:
    content = response(**fields)
    content["choices"][0]["message"]["reasoning_content"] = text
    return content


async def ask(*answers: httpx.Response | Exception) -> AnswerRecord:
    remaining = [*answers]

    def answer(request: httpx.Request) -> httpx.Response:
        next_answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        if isinstance(next_answer, Exception):
            raise next_answer
        return next_answer

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(base_url="http://x/v1", transport=transport) as client:
        return await ServerClient(client, CONFIG, load_scorer("numeric")).ask(CAP, QUESTION, 0)


def test_a_request_has_the_fields_of_the_run_configuration() -> None:
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
    ("config", "condition", "expected"),
    [
        (FOREIGN, CAP, {"thinking_token_budget": 5}),
        (FOREIGN, Condition(Kind.CAP, -1), {}),
        (CONFIG, Condition(Kind.EFFORT, "low"), {"reasoning_effort": "low"}),
    ],
)
def test_other_servers_get_no_proctor_fields(
    config: RunConfig, condition: Condition, expected: dict[str, Any]
) -> None:
    fields = request(config, condition, QUESTION, 0)
    common = {"model", "messages", "temperature", "top_p", "seed"}
    assert {name: fields[name] for name in fields.keys() - common} == expected


def test_the_thinking_of_one_chain_of_several_is_not_counted() -> None:
    condition = Condition(Kind.CAP, 64, parallel=Parallel(4, "vote"))
    fields = request(CONFIG, condition, QUESTION, 0)
    assert fields["thinking"] == {"parallel": {"chains": 4, "method": "vote"}}
    assert "logprobs" not in fields


async def test_the_usage_includes_the_tokens_of_probes() -> None:
    content = response_with_thinking("ab", logprobs=logprobs_of("a", "b"))
    content["usage"]["completion_tokens"] += 7
    content["usage"]["completion_tokens_details"]["reasoning_tokens"] += 7
    content["choices"][0]["thinking"] = {"end_reason": "settled", "probe_tokens": 7}
    row = await ask(httpx.Response(200, json=content))

    assert (row.probe_tokens, row.tokens, row.generated) == (7, 2 + 7, 3 + 7)
    sample = row.to_sample()
    assert (sample.tokens, sample.generated) == (9, 10)
    assert sample.tokens > row.bounds[1]  # a cap of 5


async def test_an_answer_is_scored_and_recorded() -> None:
    row = await ask(
        httpx.Response(
            200, json=response_with_thinking(" a\u20ac", logprobs=logprobs_of(" a", "\u20ac"))
        )
    )

    assert (row.score, row.normalized_answer, row.tokens, row.generated) == (1, "1", 2, 3)
    assert row.confidence == -0.375
    assert "logprobs" not in row.response["choices"][0]


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(404), httpx.Response(200, text="<html>"), httpx.Response(200, json={})],
)
async def test_a_server_without_prices_gives_an_empty_price(answer: httpx.Response) -> None:
    transport = httpx.MockTransport(lambda _: answer)
    async with httpx.AsyncClient(base_url="http://x/v1", transport=transport) as http:
        client = ServerClient(http, CONFIG, load_scorer("numeric"))
        assert await client.price(CAP, QUESTION) == {}


async def test_a_refusal_that_no_retry_helps_is_not_retried() -> None:
    refused = httpx.Response(429, headers={"x-should-retry": "false"}, text="too expensive")
    with pytest.raises(RequestRefused, match="too expensive"):
        await ask(refused)


async def test_a_busy_server_is_retried_with_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def record_wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(client_module, "sleep", record_wait)
    row = await ask(
        httpx.Response(429, headers={"retry-after": "3"}),
        httpx.Response(503, headers={"retry-after": "soon"}),
        httpx.ConnectError("refused"),
        httpx.Response(200, json=response()),
    )

    assert row.score == 1
    # The 3 s of `Retry-After`, then at least twice the previous wait.
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
async def test_failed_requests_raise_with_the_reason(
    answer: httpx.Response | Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_wait(_: float) -> None:
        pass

    monkeypatch.setattr(client_module, "sleep", no_wait)
    with pytest.raises(RequestRefused, match=message):
        await ask(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            response_with_thinking("abc", logprobs=logprobs_of("a", "b", "c")),
            "counts 2 thinking tokens, but sent 3",
        ),
        (
            response_with_thinking("ab", logprobs=logprobs_of("a", "c")),
            "differ from the text of the thinking",
        ),
    ],
)
async def test_wrong_token_counts_end_the_run(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenCountMismatch, match=message):
        await ask(httpx.Response(200, json=answer))
