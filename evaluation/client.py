"""An HTTP client that sends questions and scores the answers."""

import random
from asyncio import get_running_loop, sleep
from statistics import fmean
from typing import Any

import httpx

from proctor.evaluation.conditions import BUDGET_FIELD, Condition, Kind
from proctor.evaluation.rows import AnswerRecord, probe_tokens, thinking_tokens
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.scorers import Scorer
from proctor.evaluation.tasks import Question

TIMEOUT_SECONDS = 600
MAX_ATTEMPTS = 8
INITIAL_BACKOFF_SECONDS = 0.5
PRICES = ("expected", "most")
RETRY_STATUSES = (429, 503)


class RequestRefused(RuntimeError):
    """The server is unreachable, or its response is an error or invalid.

    Attributes:
        status: the status of a response that is an error, or None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TokenCountMismatch(RuntimeError):
    """The server's count of thinking tokens differs from that of the tokens received."""


class ServerClient:
    """Sends questions, and scores the answers."""

    def __init__(self, http: httpx.AsyncClient, config: RunConfig, scorer: Scorer) -> None:
        """Create a client.

        Args:
            http: its base URL must end in `/v1`.
            config: what all requests have in common.
            scorer: scores the answers.
        """
        self._http = http
        self._config = config
        self._scorer = scorer

    async def ask(self, condition: Condition, question: Question, sample: int) -> AnswerRecord:
        """Send one question and score the answer.

        Raises:
            RequestRefused: if the server does not answer, or not in OpenAI's format.
            TokenCountMismatch: if its count of thinking tokens is wrong.
        """
        began = get_running_loop().time()
        response = await self._post(request(self._config, condition, question, sample))
        seconds = get_running_loop().time() - began
        answer, logprobs = _parse(response)
        _check_count(response, logprobs.get("reasoning_content"), question, condition)
        return AnswerRecord(
            condition=condition,
            question=question.id,
            sample=sample,
            score=self._scorer.score(answer, question.answer),
            normalized_answer=self._scorer.normalize(answer),
            confidence=_mean_logprob(logprobs.get("content")),
            seconds=seconds,
            response=response,
        )

    async def price(self, condition: Condition, question: Question) -> dict[str, float]:
        """Return the server's estimate of an answer's cost, from a dry run.

        The keys are `expected` and `most`. A key is absent if the server has no such estimate:
        before the first answers of this kind, without prices, or if it is not Proctor.

        Raises:
            RequestRefused: if the server is unreachable.
        """
        body = request(self._config, condition, question, 0)
        try:
            response = await self._http.post("route", json=body)
            cost = (response.json().get("cost") or {}) if response.is_success else {}
        except httpx.TransportError as error:
            raise RequestRefused(f"the server cannot be reached: {error!r}") from error
        except ValueError:  # not JSON: some servers return a page for every path
            cost = {}
        return {name: float(cost[name]) for name in PRICES if cost.get(name) is not None}

    async def _post(self, body: dict[str, Any]) -> Any:
        wait = INITIAL_BACKOFF_SECONDS
        for attempt in range(MAX_ATTEMPTS):
            try:
                response = await self._http.post("chat/completions", json=body)
            except httpx.TransportError as error:
                if attempt == MAX_ATTEMPTS - 1:
                    raise RequestRefused(f"the server cannot be reached: {error!r}") from error
            else:
                if response.is_success:
                    return _json(response)
                if response.status_code not in RETRY_STATUSES or attempt == MAX_ATTEMPTS - 1:
                    raise RequestRefused(
                        f"{response.status_code}: {response.text[:500]}", response.status_code
                    )
                wait = max(wait, _retry_after(response))
            await sleep(wait * random.uniform(1, 1.25))
            wait *= 2
        raise AssertionError("the last attempt returns or raises")


def request(
    config: RunConfig, condition: Condition, question: Question, sample: int
) -> dict[str, Any]:
    """Return the body of a chat request."""
    body: dict[str, Any] = {
        "model": config.model,
        "messages": [{"role": "user", "content": question.text}],
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": config.seed + sample,
        **condition.fields(config.budget_field),
    }
    is_proctor = config.budget_field == BUDGET_FIELD and condition.kind != Kind.EFFORT
    # Only sent to Proctor: other servers may reject these fields. Of several chains the response
    # has the thinking of one, so its tokens cannot be compared with the count, which is of all.
    if is_proctor and condition.parallel is None:
        body["thinking"] = {"logprobs": True, **body.get("thinking", {})}
        body["logprobs"] = True
    return body


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise RequestRefused(
            f"the server's response is not JSON: {response.text[:200]!r}"
        ) from error


def _parse(response: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the answer and the log probabilities.

    The log probabilities are removed from the response, of which they are the largest part.
    """
    try:
        choice = response["choices"][0]
        logprobs: dict[str, Any] = choice.pop("logprobs", None) or {}
        thinking_tokens(response)  # raises if the response is invalid
        return choice["message"].get("content") or "", logprobs
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RequestRefused(f"the server's response cannot be read: {error!r}") from error


def _check_count(
    response: dict[str, Any],
    entries: list[dict[str, Any]] | None,
    question: Question,
    condition: Condition,
) -> None:
    """Check the server's count of thinking tokens, and their text, against the log probabilities.

    Log probabilities have one entry for each token, with its bytes, so the tokens can be counted
    and concatenated without the tokenizer. A server that returns none for its thinking is not
    checked.
    """
    if entries is None:
        return
    context = f"question '{question.id}', {condition.name}"
    counted = thinking_tokens(response) - probe_tokens(response)
    if len(entries) != counted:
        raise TokenCountMismatch(
            f"{context}: the server counts {counted} thinking tokens, but sent {len(entries)}"
        )
    received = b"".join(bytes(entry["bytes"]) for entry in entries).decode(errors="replace")
    text = response["choices"][0]["message"].get("reasoning_content") or ""
    if received.strip() != text.strip():
        raise TokenCountMismatch(
            f"{context}: the tokens received differ from the text of the thinking"
        )


def _mean_logprob(entries: list[dict[str, Any]] | None) -> float | None:
    if not entries:
        return None
    return float(fmean(entry["logprob"] for entry in entries))


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
