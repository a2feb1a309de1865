"""Scorers of answers, by which the best of several chains is chosen."""

import asyncio
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

import aiohttp
from pydantic import BaseModel, ValidationError

from proctor.server.config.budgets import ScorerSettings
from proctor.server.config.section import ConfigError
from proctor.server.http_client import JSON, is_success, new_session, send

GROUP = "proctor.answer_scorers"
"""Entry-point group of functions that score answers; see `AnswerScorer.score`."""

Messages = Sequence[Mapping[str, Any]]


class ScorerFailed(Exception):
    """A scorer has not scored all answers within its time."""


class Scores(BaseModel):
    """What a scorer responds with."""

    scores: list[float]


class AnswerScorer(Protocol):
    """Scores answers; higher is better."""

    async def score(self, messages: Messages, answers: Sequence[str]) -> Sequence[float]:
        """Return a score for each answer to a conversation.

        Args:
            messages: the messages of the request, in OpenAI's format.
            answers: the texts of the answers.

        Raises:
            Exception: if it cannot.
        """


class FunctionScorer:
    """A scorer that is a function, which may be a coroutine function."""

    def __init__(self, function: Callable[[Messages, Sequence[str]], Any]) -> None:
        self._function = function

    async def score(self, messages: Messages, answers: Sequence[str]) -> Sequence[float]:
        if inspect.iscoroutinefunction(self._function):
            scores = await self._function(messages, answers)
        else:
            scores = await asyncio.to_thread(self._function, messages, answers)
        return Scores(scores=list(scores)).scores


class HttpScorer:
    """A scorer at a URL, to which messages and answers are posted as JSON."""

    def __init__(self, url: str, seconds: float) -> None:
        """Create a scorer; it connects for each call.

        Args:
            url: the URL, from the settings.
            seconds: the time limit of a call.
        """
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    async def score(self, messages: Messages, answers: Sequence[str]) -> Sequence[float]:
        body = json.dumps({"messages": messages, "answers": answers}).encode()
        async with (
            new_session(self._url, self._timeout) as session,
            await send(
                session, "POST", self._url, body=body, headers=JSON, allow_redirects=False
            ) as response,
        ):
            if not is_success(response.status):
                raise ScorerFailed(f"it responded with status {response.status}")
            return Scores.model_validate_json(await response.read()).scores


class BoundedScorer:
    """A scorer with a time limit, whose scores are checked."""

    def __init__(self, scorer: AnswerScorer, seconds: float) -> None:
        self._scorer = scorer
        self._seconds = seconds

    async def score(self, messages: Messages, answers: Sequence[str]) -> Sequence[float]:
        """Return a finite score for each answer.

        Raises:
            ScorerFailed: if the scorer fails, takes too long, or returns anything else.
        """
        try:
            async with asyncio.timeout(self._seconds):
                scores = await self._scorer.score(messages, answers)
        except TimeoutError as error:
            raise ScorerFailed(f"it took longer than {self._seconds:g} s") from error
        except ValidationError as error:
            raise ScorerFailed("its result is no list of scores") from error
        except ScorerFailed:
            raise
        except Exception as error:  # a scorer is code of others
            raise ScorerFailed(f"{type(error).__name__}: {error}") from error
        if len(scores) != len(answers) or not all(map(math.isfinite, scores)):
            raise ScorerFailed(f"it did not return {len(answers)} finite scores")
        return scores


def open_scorer(settings: ScorerSettings) -> BoundedScorer | None:
    """Return the scorer of the settings, or None if there is none.

    Raises:
        ConfigError: if no entry point has this name.
    """
    if settings.url is not None:
        return BoundedScorer(
            HttpScorer(settings.url, settings.timeout_seconds), settings.timeout_seconds
        )
    if settings.entry_point is None:
        return None
    installed = entry_points(group=GROUP)
    if settings.entry_point not in installed.names:
        names = ", ".join(sorted(installed.names)) or "none"
        raise ConfigError(
            f"answer_scorer.entry_point: Unknown scorer '{settings.entry_point}'; "
            f"installed: {names}"
        )
    function = installed[settings.entry_point].load()
    return BoundedScorer(FunctionScorer(function), settings.timeout_seconds)
