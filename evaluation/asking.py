"""Asks a server, and tells what it said and what that took."""

import asyncio
import random
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from evaluation.scorers import Scorer
from evaluation.tasks import Question

PATIENCE_SECONDS = 600
TRIES = 8
FIRST_WAIT_SECONDS = 0.5
AGAIN = (429, 503)
"""Statuses after which it is worth another try."""


class Refused(RuntimeError):
    """The server does not answer; the message says what it said."""


class Miscounted(RuntimeError):
    """The server's count of thinking tokens is not that of the tokens that came."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is asked for beside the question.

    Attributes:
        name: what reports call it.
        fields: of the request.
        least: thinking tokens that the budget demands.
        most: that it allows, or None.
    """

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One sample, as it is kept.

    Attributes:
        setting: the setting's name.
        question: the question's id.
        sample: which one, from 0.
        score: how right it is.
        answer: what was said.
        tokens: thinking tokens, as the server counts them.
        generated: all of them.
        prompt: of the prompt.
        end_reason: why the thinking ended, if the server says.
        forced_tokens: that the server chose.
        continuations: that it made.
        cost: what it says that it cost, or None.
        seconds: until all had come.
    """

    setting: str
    question: str
    sample: int
    score: float
    answer: str
    tokens: int
    generated: int
    prompt: int
    end_reason: str | None
    forced_tokens: int
    continuations: int
    cost: float | None
    seconds: float

    @property
    def key(self) -> tuple[str, str, int]:
        """What no other row has."""
        return self.setting, self.question, self.sample

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)


class Examiner:
    """Asks questions, so many at a time."""

    def __init__(
        self, client: httpx.AsyncClient, model: str, scorer: Scorer, temperature: float, seed: int
    ) -> None:
        """Make one.

        Args:
            client: whose base URL ends in `/v1`.
            model: the model's name.
            scorer: says what is right.
            temperature: of every request.
            seed: of the first sample of each question; the next one's is one more.
        """
        self._client = client
        self._model = model
        self._scorer = scorer
        self._temperature = temperature
        self._seed = seed

    async def ask(self, setting: Setting, question: Question, sample: int) -> Row:
        """Ask one question once.

        Raises:
            Refused: if the server does not answer.
            Miscounted: if its accounts are wrong.
        """
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question.text}],
            "temperature": self._temperature,
            "seed": self._seed + sample,
            "logprobs": True,
            **setting.fields,
            "thinking": {"logprobs": True, **setting.fields.get("thinking", {})},
        }
        began = asyncio.get_running_loop().time()
        told = await self._post(body)
        seconds = asyncio.get_running_loop().time() - began
        row = self._read(told, setting, question, sample, seconds)
        _check_count(told, row)
        return row

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        wait = FIRST_WAIT_SECONDS
        for attempt in range(TRIES):
            try:
                response = await self._client.post("chat/completions", json=body)
            except httpx.TransportError as error:
                if attempt == TRIES - 1:
                    raise Refused(f"the server cannot be reached: {error!r}") from error
            else:
                if response.is_success:
                    answer: dict[str, Any] = response.json()
                    return answer
                if response.status_code not in AGAIN or attempt == TRIES - 1:
                    raise Refused(f"{response.status_code}: {response.text[:500]}")
                wait = max(wait, _retry_after(response))
            await asyncio.sleep(wait * random.uniform(1, 1.25))
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def _read(
        self,
        told: dict[str, Any],
        setting: Setting,
        question: Question,
        sample: int,
        seconds: float,
    ) -> Row:
        choice, usage = told["choices"][0], told["usage"]
        thinking = choice.get("thinking") or {}
        answer = choice["message"].get("content") or ""
        details = usage.get("completion_tokens_details") or {}
        return Row(
            setting=setting.name,
            question=question.id,
            sample=sample,
            score=self._scorer(answer, question.answer),
            answer=answer,
            tokens=details.get("reasoning_tokens") or 0,
            generated=usage["completion_tokens"],
            prompt=usage["prompt_tokens"],
            end_reason=thinking.get("end_reason"),
            forced_tokens=thinking.get("forced_tokens", 0),
            continuations=thinking.get("continuations", 0),
            cost=(told.get("cost") or {}).get("total"),
            seconds=seconds,
        )


def _check_count(told: dict[str, Any], row: Row) -> None:
    """See that as many tokens of thinking came as the server says.

    Log probabilities have one entry for each token, so they can be counted without knowing the
    tokenizer; a server that gives none for its thinking cannot be checked.
    """
    scores = (told["choices"][0].get("logprobs") or {}).get("reasoning_content")
    if scores is not None and len(scores) != row.tokens:
        raise Miscounted(
            f"question '{row.question}', {row.setting}: the server counts {row.tokens} thinking "
            f"tokens, and {len(scores)} came"
        )


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
