"""Settings of budgets: the default, the tiers, and how requests are sorted into them."""

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from proctor.budget import BudgetError, Landing, OnLoop, ThinkingBudget
from proctor.router import Costs
from proctor.server.config.section import Section, coalesce

logger = logging.getLogger(__name__)

AUTO = "auto"
"""In the place of a tier's name: the router chooses."""

CUSTOM = "custom"
"""What metrics and headers call a budget of no tier."""


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


OneOrMoreTexts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Cap = Annotated[int, Field(ge=-1)]


def _no_cap(max_tokens: int) -> int | None:
    return None if max_tokens == -1 else max_tokens


def _checked(make: Callable[[], ThinkingBudget]) -> None:
    try:
        make()
    except BudgetError as error:
        raise ValueError(str(error)) from error


class DefaultBudget(Section):
    """The budget of a request that sets none and is of no tier; tiers take their texts from here.

    Attributes:
        max_tokens: -1 is no cap but the context.
    """

    min_tokens: int = 0
    max_tokens: Cap = -1
    continuations: int = 0
    continuation_text: OneOrMoreTexts = ("Wait",)
    wrap_up_text: str = ""
    on_loop: OnLoop = OnLoop.CLOSE
    landing: Landing = Landing.SENTENCE

    @model_validator(mode="after")
    def _is_a_budget(self) -> "DefaultBudget":
        _checked(self.to_budget)
        return self

    def to_budget(self) -> ThinkingBudget:
        """The budget itself."""
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
    """A named budget; what it leaves out is as under `[budget]`.

    Attributes:
        name: what requests, headers and metrics call it.
        max_tokens: -1 is no cap but the context.
        temperature: for requests that set none.
        top_p: likewise.
        max_price: most that one answer may cost, prompt included; its length is
            cut to what that pays for.
    """

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,31}$")]
    min_tokens: Annotated[int, Field(ge=0)] = 0
    max_tokens: Cap
    continuations: Annotated[int, Field(ge=0)] = 0
    continuation_text: OneOrMoreTexts | None = None
    wrap_up_text: str | None = None
    on_loop: OnLoop | None = None
    landing: Landing | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_price: Annotated[Decimal, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _is_a_budget(self) -> "Tier":
        if self.name in (AUTO, CUSTOM):
            raise ValueError(f"no tier can be called '{self.name}': it has another meaning")
        _checked(lambda: self.to_budget(ThinkingBudget()))
        return self

    @property
    def thinks(self) -> bool:
        """Whether it allows any thinking."""
        return self.max_tokens != 0

    @property
    def cap(self) -> float:
        """Most thinking tokens, infinite without a cap."""
        return float("inf") if self.max_tokens == -1 else self.max_tokens

    def to_cap(self) -> int | None:
        """Most thinking tokens, or None."""
        return _no_cap(self.max_tokens)

    def to_budget(self, default: ThinkingBudget) -> ThinkingBudget:
        """The budget itself, over the server's default."""
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
"""For a full-size model."""


class TierNames(Section):
    """The names of the tiers that stand for something."""

    def tier_of(self, key: str) -> str:
        """The name of the tier of one of the fields."""
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
    """How prompts are sorted into tiers.

    Attributes:
        classifier: an entry point of the group `proctor.classifiers`.
        levels: the tier of each level of difficulty.
        costs: what it costs to treat a prompt of one level as one of another.
    """

    classifier: Annotated[str, Field(min_length=1)] = "ensemble"
    levels: Levels = Levels()
    costs: Costs = Costs()

    @field_validator("classifier")
    @classmethod
    def _is_called_ensemble_now(cls, name: str) -> str:
        if name != "linear":
            return name
        logger.warning("router.classifier: 'linear' is deprecated, use 'ensemble'")
        return "ensemble"


class Ceilings(Section):
    """What no request may go beyond; what asks for more is cut, and told so.

    Attributes:
        max_thinking_tokens: most thinking tokens of a choice.
        tier: the highest tier.
    """

    max_thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    tier: str | None = None
