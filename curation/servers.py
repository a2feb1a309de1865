"""The servers that a recipe names: what is asked of them, and how they are reached."""

import os
from typing import Annotated, Self

import httpx
from pydantic import Field, model_validator

from proctor.curation.errors import CurationError
from proctor.curation.options import Options
from proctor.evaluation.client import TIMEOUT_SECONDS, RequestRefused
from proctor.evaluation.conditions import BUDGET_FIELD, Condition, Kind
from proctor.evaluation.store import Store
from proctor.evaluation.thinking_options import EarlyExit, Parallel

TOLERATED = 4
"""Refused requests before the first answer that do not end a run."""


class ConditionOptions(Options):
    """A condition of `proctor eval`: exactly one budget, and how it is spent.

    Attributes:
        cap: thinking tokens; -1 is no maximum.
        continuations: a number of continuations.
        tier: the name of a tier.
        effort: a value of `reasoning_effort`.
        early_exit: an early exit, as written for `proctor eval run --early-exit`.
        parallel: several chains, as written for `proctor eval run --parallel`.
    """

    cap: Annotated[int, Field(ge=-1)] | None = None
    continuations: Annotated[int, Field(ge=0)] | None = None
    tier: str | None = None
    effort: str | None = None
    early_exit: str | None = None
    parallel: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self._budgets()) != 1:
            raise ValueError("exactly one of cap, continuations, tier and effort is required")
        self.to_condition()  # raises if an option cannot be parsed
        return self

    def _budgets(self) -> list[tuple[Kind, int | str]]:
        budgets = [(kind, getattr(self, kind.value)) for kind in Kind]
        return [(kind, value) for kind, value in budgets if value is not None]

    def to_condition(self) -> Condition:
        """Return the condition as `proctor eval` knows it."""
        ((kind, value),) = self._budgets()
        return Condition(
            kind,
            value,
            early_exit=None if self.early_exit is None else EarlyExit.parse(self.early_exit),
            parallel=None if self.parallel is None else Parallel.parse(self.parallel),
        )


class ServerOptions(Options):
    """A model behind an OpenAI-compatible server.

    Attributes:
        model: the model's name on the server.
        base_url: the URL of the server, including `/v1`.
        api_key_env: the environment variable that holds the API key; None sends no real key.
        concurrency: the maximum of concurrent requests.
        budget_field: the server's request field for a cap, if it is not Proctor's; a cap of -1 is
            then not sent.
    """

    model: str
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str | None = None
    concurrency: Annotated[int, Field(ge=1)] = 16
    budget_field: str = BUDGET_FIELD

    def check_condition(self, condition: Condition) -> None:
        """Raise ValueError if a condition needs Proctor, and the server is another."""
        if self.budget_field != BUDGET_FIELD and condition.proctor_only:
            raise ValueError(
                f"{condition.name}: only Proctor has tiers, continuations, early exits and "
                "parallel chains; with another budget_field, name a cap or an effort"
            )

    def connect(self) -> httpx.AsyncClient:
        """Return a client of the server.

        Raises:
            CurationError: if the environment has no API key.
        """
        key = "unused" if self.api_key_env is None else os.environ.get(self.api_key_env)
        if not key:
            raise CurationError(
                f"the environment variable {self.api_key_env} must hold the API key"
            )
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers={"authorization": f"Bearer {key}"},
            timeout=TIMEOUT_SECONDS,
        )


class Refusals:
    """Lets a server refuse single requests as invalid, and ends the run if it refuses most.

    A prompt that is too long must not end a run over tens of thousands; a server without the tier
    that is asked for should.
    """

    def __init__(self, store: Store) -> None:
        """Count refusals.

        Args:
            store: counts the answers.
        """
        self._store = store
        self._known = len(store.rows)
        self.count = 0
        self.last: RequestRefused | None = None

    def add(self, refusal: RequestRefused) -> None:
        """Count a refusal; raise it if there are several, and more than answers."""
        self.count += 1
        self.last = refusal
        if self.count > len(self._store.rows) - self._known + TOLERATED:
            raise refusal
