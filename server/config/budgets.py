"""Settings of budgets: the default budget, the tiers, the router and the ceilings."""

import logging
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from proctor.budget import BudgetError, Landing, OnLoop, ThinkingBudget
from proctor.router import LEVELS, Costs
from proctor.router.outcomes.policy import Objective
from proctor.server.config.section import Section, UsageLimits, coalesce
from proctor.server.config.thinking.early_exit import AnswerKind, EarlyExit

logger = logging.getLogger(__name__)

AUTO = "auto"
"""The tier name that lets the router choose the tier."""

CUSTOM = "custom"
"""The tier name, in metrics and headers, of budgets that do not come from a tier."""


MAX_CHAINS = 64
"""The maximum number of chains; `limits.max_choices` may allow fewer."""


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


OneOrMoreTexts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Cap = Annotated[int, Field(ge=-1)]


def _no_cap(max_tokens: int) -> int | None:
    return None if max_tokens == -1 else max_tokens


def _check(make_budget: Callable[[], ThinkingBudget]) -> None:
    try:
        make_budget()
    except BudgetError as error:
        raise ValueError(str(error)) from error


class VoteMethod(StrEnum):
    """How the answer of several chains is chosen.

    Attributes:
        VOTE: the answer that most chains give (self-consistency, arXiv 2203.11171).
        CONFIDENCE: the same, but the vote of a chain counts as much as its tokens are probable:
            the geometric mean of their probabilities (after DeepConf, arXiv 2508.15260).
        FIRST_AGREEMENT: the first answer that two chains give.
        BEST_BY_KEY: the answer that the server's scorer prefers (`answer_scorer`).
    """

    VOTE = "vote"
    CONFIDENCE = "confidence"
    FIRST_AGREEMENT = "first_agreement"
    BEST_BY_KEY = "best_by_key"


class Keep(StrEnum):
    """What a response has in the place of the thinking.

    Attributes:
        WINNER: the thinking of the chain whose answer it has.
        SUMMARY: how the chains have voted.
    """

    WINNER = "winner"
    SUMMARY = "summary"


class Parallel(Section):
    """Several chains of thought for one answer, which share the budget.

    Attributes:
        chains: the number of chains; 1 turns the vote off.
        method: how the answer is chosen.
        answer: how answers are compared.
        keep: what the response has in the place of the thinking.
    """

    chains: Annotated[int, Field(ge=1, le=MAX_CHAINS)]
    method: VoteMethod = VoteMethod.VOTE
    answer: AnswerKind = AnswerKind.TEXT
    keep: Keep = Keep.WINNER


class ScorerSettings(Section):
    """What scores the answers of parallel chains, with the method `best_by_key`.

    Attributes:
        entry_point: the name of an entry point of the group `proctor.answer_scorers`.
        url: the URL to which messages and answers are posted, instead of `entry_point`.
        timeout_seconds: the time after which the chains vote instead.
    """

    entry_point: Annotated[str, Field(min_length=1)] | None = None
    url: Annotated[str, Field(pattern="^https?://")] | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _is_one_scorer(self) -> "ScorerSettings":
        if self.entry_point is not None and self.url is not None:
            raise ValueError("entry_point and url are mutually exclusive")
        return self

    @property
    def configured(self) -> bool:
        """Whether there is a scorer."""
        return self.entry_point is not None or self.url is not None


def _check_shares(minimum: int, maximum: int, parallel: Parallel | None) -> None:
    """Check that each chain's share of a maximum is as large as the minimum."""
    if parallel is None or maximum == -1:
        return
    if maximum and maximum // parallel.chains < max(1, minimum):
        raise ValueError(
            f"parallel.chains: Must be at most {maximum // max(1, minimum)}, as each chain must "
            f"have {max(1, minimum)} of the {maximum} thinking tokens"
        )


class DefaultBudget(Section):
    """The budget of requests without a budget or a tier, and the defaults of the tiers' texts.

    Attributes:
        max_tokens: the maximum number of thinking tokens; -1 for no limit but the context.
        early_exit: when thinking ends early because its answer is settled.
        parallel: several chains of thought for one answer, which share the budget.
    """

    min_tokens: int = 0
    max_tokens: Cap = -1
    continuations: int = 0
    continuation_text: OneOrMoreTexts = ("Wait",)
    wrap_up_text: str = ""
    on_loop: OnLoop = OnLoop.CLOSE
    landing: Landing = Landing.SENTENCE
    early_exit: EarlyExit | None = None
    parallel: Parallel | None = None

    @model_validator(mode="after")
    def _is_valid_budget(self) -> "DefaultBudget":
        _check(self.to_budget)
        _check_shares(self.min_tokens, self.max_tokens, self.parallel)
        return self

    def to_budget(self) -> ThinkingBudget:
        """Return the budget."""
        return ThinkingBudget(
            min_tokens=self.min_tokens,
            max_tokens=_no_cap(self.max_tokens),
            continuations=self.continuations,
            continuation_texts=self.continuation_text,
            wrap_up_text=self.wrap_up_text,
            on_loop=self.on_loop,
            landing=self.landing,
        )


class Tier(Section):
    """A named budget; omitted options default to those of `[budget]`.

    Attributes:
        name: the name in requests, headers and metrics.
        max_tokens: the maximum number of thinking tokens; -1 for no limit but the context.
        early_exit: when thinking ends early because its answer is settled.
        parallel: several chains of thought for one answer, which share the budget. Requests to
            which it does not apply, for instance as they have tools, get one chain.
        temperature: the temperature of requests that do not set one.
        top_p: the `top_p` of requests that do not set one.
        max_price: the maximum cost of an answer, prompt included; the length of the
            answer is limited accordingly.
        session: the limits of what a session may use in this tier.
        model: the model of `models` that serves the tier; None for the one that the
            request names.
    """

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,31}$")]
    min_tokens: Annotated[int, Field(ge=0)] = 0
    max_tokens: Cap
    continuations: Annotated[int, Field(ge=0)] = 0
    continuation_text: OneOrMoreTexts | None = None
    wrap_up_text: str | None = None
    on_loop: OnLoop | None = None
    landing: Landing | None = None
    early_exit: EarlyExit | None = None
    parallel: Parallel | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_price: Annotated[Decimal, Field(gt=0)] | None = None
    session: UsageLimits = UsageLimits()
    model: str | None = None

    @model_validator(mode="after")
    def _is_valid_budget(self) -> "Tier":
        if self.name in (AUTO, CUSTOM):
            raise ValueError(f"The tier name '{self.name}' is reserved")
        _check(lambda: self.to_budget(ThinkingBudget()))
        _check_shares(self.min_tokens, self.max_tokens, self.parallel)
        if self.parallel is not None and self.parallel.chains > 1 and self.temperature == 0:
            raise ValueError("parallel requires a temperature above 0, or all chains are the same")
        return self

    @property
    def thinks(self) -> bool:
        """Whether the tier allows thinking."""
        return self.max_tokens != 0

    @property
    def cap(self) -> float:
        """The maximum number of thinking tokens, infinite without a cap."""
        return float("inf") if self.max_tokens == -1 else self.max_tokens

    def to_cap(self) -> int | None:
        """Return the maximum number of thinking tokens, or None without a cap."""
        return _no_cap(self.max_tokens)

    def to_budget(self, default: ThinkingBudget) -> ThinkingBudget:
        """Return the budget, with omitted options taken from the default budget."""
        return ThinkingBudget(
            min_tokens=self.min_tokens,
            max_tokens=_no_cap(self.max_tokens),
            continuations=self.continuations,
            continuation_texts=coalesce(default.continuation_texts, self.continuation_text),
            wrap_up_text=coalesce(default.wrap_up_text, self.wrap_up_text),
            on_loop=coalesce(default.on_loop, self.on_loop),
            landing=coalesce(default.landing, self.landing),
        )


DEFAULT_TIERS = (
    Tier(name="none", max_tokens=0),
    Tier(name="low", max_tokens=512),
    Tier(name="medium", max_tokens=2048),
    Tier(name="high", min_tokens=256, max_tokens=8192),
    Tier(name="max", min_tokens=512, max_tokens=32768),
)
"""The default tiers, for a full-size model."""


class TierNames(Section):
    """A table of tier names."""

    def tier_of(self, key: str) -> str:
        """Return the name of the tier that a field is mapped to."""
        name: str = getattr(self, key)
        return name


class Efforts(TierNames):
    """The tier of each `reasoning_effort`."""

    none: str = "none"
    minimal: str = "low"
    low: str = "low"
    medium: str = "medium"
    high: str = "high"
    xhigh: str = "max"
    max: str = "max"


class Levels(TierNames):
    """The tier of each of `router.LEVELS`."""

    none: str = "none"
    low: str = "low"
    medium: str = "medium"
    high: str = "high"


class RouterSettings(Section):
    """Settings of the router.

    Attributes:
        classifier: the name of an entry point of the group `proctor.classifiers`.
        levels: the tier of each level of difficulty.
        costs: the cost of treating a prompt of one level as one of another; without a
            `model`, they decide.
        model: the file of an outcome model that `proctor router learn` has written; None
            decides by `costs`.
        error_cost: the price of a wrong answer, in thinking tokens: the tier of the least
            expected cost is chosen.
        mean_thinking_tokens: the average number of thinking tokens of an answer: the tiers
            of the best expected accuracy within it are chosen.
        min_accuracy: the share of right answers below which prices and averages are not
            respected.
        explore: the share of prompts that get another tier than the one chosen, so that
            there are answers to learn from.
        half_life_days: the age at which an answer counts half when a model is learned.
        learn_hours: the interval at which the server learns `model` anew from its ledger, in
            a process of its own; 0 leaves it to `proctor router learn`.
    """

    classifier: Annotated[str, Field(min_length=1)] = "ensemble"
    levels: Levels = Levels()
    costs: Costs = Costs()
    model: Path | None = None
    error_cost: Annotated[float, Field(gt=0)] | None = None
    mean_thinking_tokens: Annotated[float, Field(gt=0)] | None = None
    min_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = None
    explore: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    half_life_days: Annotated[float, Field(gt=0)] = 30.0
    learn_hours: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _has_one_objective(self) -> "RouterSettings":
        if self.error_cost is not None and self.mean_thinking_tokens is not None:
            raise ValueError("error_cost and mean_thinking_tokens are mutually exclusive")
        if self.model is not None and self.objective == Objective():
            raise ValueError("model requires error_cost, mean_thinking_tokens or min_accuracy")
        if self.learn_hours and self.model is None:
            raise ValueError("learn_hours requires model, the file to write")
        return self

    @property
    def objective(self) -> Objective:
        """What an outcome model shall choose by."""
        return Objective(self.error_cost, self.mean_thinking_tokens, self.min_accuracy)

    @property
    def tiers(self) -> tuple[str, ...]:
        """The names of the tiers to choose from, from the lowest level to the highest."""
        return tuple(dict.fromkeys(map(self.levels.tier_of, LEVELS)))

    @field_validator("classifier")
    @classmethod
    def _rename_linear(cls, name: str) -> str:
        if name != "linear":
            return name
        logger.warning("router.classifier: 'linear' is deprecated; use 'ensemble'")
        return "ensemble"


class Ceilings(Section):
    """The limits of all requests. Larger budgets are clamped, and the response says so.

    Attributes:
        max_thinking_tokens: the maximum number of thinking tokens of a choice.
        tier: the highest tier.
    """

    max_thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    tier: str | None = None
