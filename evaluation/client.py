"""Asks a server, and tells what it said and what that took."""

import random
from asyncio import get_running_loop, sleep
from statistics import fmean
from typing import Any

import httpx

from proctor.evaluation.conditions import BUDGET_FIELD, Condition, Kind
from proctor.evaluation.rows import AnswerRecord, thinking_tokens
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.scorers import Scorer
from proctor.evaluation.tasks import Question

PATIENCE_SECONDS = 600
TRIES = 8
FIRST_WAIT_SECONDS = 0.5
PRICES = ("expected", "most")
AGAIN = (429, 503)
"""Statuses after which it is worth another try."""


class RequestRefused(RuntimeError):
    """The server does not answer; the message says what it said."""


class TokenCountMismatch(RuntimeError):
    """The server's count of thinking tokens is not that of the tokens that came."""


class ServerClient:
    """Asks questions, and judges the answers."""

    def __init__(self, client: httpx.AsyncClient, protocol: RunConfig, scorer: Scorer) -> None:
        """Make one.

        Args:
            client: whose base URL ends in `/v1`.
            protocol: what all requests have in common.
            scorer: says what is right.
        """
        self._client = client
        self._protocol = protocol
        self._scorer = scorer

    async def ask(self, setting: Condition, question: Question, sample: int) -> AnswerRecord:
        """Ask one question once.

        Raises:
            Refused: if the server does not answer, or not in OpenAI's shape.
            Miscounted: if its accounts are wrong.
        """
        began = get_running_loop().time()
        told = await self._post(request(self._protocol, setting, question, sample))
        seconds = get_running_loop().time() - began
        answer, scores = _read(told)
        _check_count(told, scores.get("reasoning_content"), question, setting)
        return AnswerRecord(
            setting=setting,
            question=question.id,
            sample=sample,
            score=self._scorer.score(answer, question.answer),
            said=self._scorer.said(answer),
            confidence=_mean_logprob(scores.get("content")),
            seconds=seconds,
            response=told,
        )

    async def price(self, setting: Condition, question: Question) -> dict[str, float]:
        """What the server says that an answer will cost, asked without generating one.

        `expected` and `most`; what it does not say is left out: it has answered
        nothing of the kind yet, knows no prices, or is no Proctor.

        Raises:
            Refused: if nothing listens there.
        """
        body = request(self._protocol, setting, question, 0)
        try:
            response = await self._client.post("route", json=body)
            cost = (response.json().get("cost") or {}) if response.is_success else {}
        except httpx.TransportError as error:
            raise RequestRefused(f"the server cannot be reached: {error!r}") from error
        except ValueError:  # a page, say, of a server that has one for every path
            cost = {}
        return {name: float(cost[name]) for name in PRICES if cost.get(name) is not None}

    async def _post(self, body: dict[str, Any]) -> Any:
        wait = FIRST_WAIT_SECONDS
        for attempt in range(TRIES):
            try:
                response = await self._client.post("chat/completions", json=body)
            except httpx.TransportError as error:
                if attempt == TRIES - 1:
                    raise RequestRefused(f"the server cannot be reached: {error!r}") from error
            else:
                if response.is_success:
                    return _json(response)
                if response.status_code not in AGAIN or attempt == TRIES - 1:
                    raise RequestRefused(f"{response.status_code}: {response.text[:500]}")
                wait = max(wait, _retry_after(response))
            await sleep(wait * random.uniform(1, 1.25))
            wait *= 2
        raise AssertionError("the last try returns or raises")


def request(
    protocol: RunConfig, setting: Condition, question: Question, sample: int
) -> dict[str, Any]:
    """What is posted."""
    body: dict[str, Any] = {
        "model": protocol.model,
        "messages": [{"role": "user", "content": question.text}],
        "temperature": protocol.temperature,
        "top_p": protocol.top_p,
        "seed": protocol.seed + sample,
        **setting.fields(protocol.budget_field),
    }
    if protocol.budget_field == BUDGET_FIELD and setting.kind != Kind.EFFORT:
        # Nothing that a server of another make would refuse.
        body["thinking"] = {"logprobs": True, **body.get("thinking", {})}
        body["logprobs"] = True
    return body


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise RequestRefused(f"the server's answer is no JSON: {response.text[:200]!r}") from error


def _read(told: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The answer, and the log probabilities, which are taken out: they are most of a response."""
    try:
        choice = told["choices"][0]
        scores: dict[str, Any] = choice.pop("logprobs", None) or {}
        thinking_tokens(told)
        return choice["message"].get("content") or "", scores
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RequestRefused(f"the server's answer cannot be read: {error!r}") from error


def _check_count(
    told: dict[str, Any],
    entries: list[dict[str, Any]] | None,
    question: Question,
    setting: Condition,
) -> None:
    """See that as many tokens of thinking came as the server says, and that they are its text.

    Log probabilities have one entry for each token, with its bytes, so the tokens can be counted
    and put together without knowing the tokenizer. A server that gives none for its thinking
    cannot be checked.
    """
    if entries is None:
        return
    where = f"question '{question.id}', {setting.name}"
    counted = thinking_tokens(told)
    if len(entries) != counted:
        raise TokenCountMismatch(
            f"{where}: the server counts {counted} thinking tokens, and {len(entries)} came"
        )
    written = b"".join(bytes(entry["bytes"]) for entry in entries).decode(errors="replace")
    text = told["choices"][0]["message"].get("reasoning_content") or ""
    if written.strip() != text.strip():
        raise TokenCountMismatch(
            f"{where}: the tokens that came are not those of the thinking's text"
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
