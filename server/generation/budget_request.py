"""What a request asks of the thinking, out of all the spellings that it can use."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from proctor.server.config.budgets import AUTO
from proctor.server.errors import BadRequest
from proctor.server.schemas.generation import (
    ChatRequest,
    Effort,
    Generation,
    NvExt,
    Reasoning,
    Thinking,
)

NO_OPTIONS = Thinking()
ROUTED = (AUTO, "adaptive")
"""What `thinking.type` says where the router is to choose; the second is Anthropic's."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class FieldValue(Generic[T_co]):
    """A value, and the field that gave it."""

    field: str
    value: T_co


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """What a request says of its thinking; None where it says nothing.

    Attributes:
        maximum: thinking tokens; -1 is no cap.
        minimum: thinking tokens.
        continuations: attempts to close that are turned down.
        tier: a tier's name, or "auto".
        effort: which chooses a tier.
        enabled: whether to think at all.
        options: texts, and what to do at the edges.
    """

    maximum: FieldValue[int] | None = None
    minimum: FieldValue[int] | None = None
    continuations: FieldValue[int] | None = None
    tier: FieldValue[str] | None = None
    effort: FieldValue[Effort] | None = None
    enabled: FieldValue[bool] | None = None
    options: Thinking = NO_OPTIONS

    @property
    def number(self) -> FieldValue[int] | None:
        """A number that it names; the maximum before others."""
        return self.maximum or self.minimum or self.continuations


def read_budget_request(request: Generation) -> BudgetRequest:
    """Read every spelling.

    Raises:
        BadRequest: if two fields contradict each other; both are named.
    """
    thinking = request.thinking or Thinking()
    asked = BudgetRequest(
        maximum=_agreed(_maxima(request)),
        minimum=_agreed(
            _some(
                {
                    "min_thinking_tokens": request.min_thinking_tokens,
                    "thinking.min_tokens": thinking.min_tokens,
                }
            )
        ),
        continuations=_agreed(_some({"thinking.continuations": thinking.continuations})),
        tier=_tier(request),
        effort=_agreed(_efforts(request)),
        enabled=_agreed(_switches(request)),
        options=thinking,
    )
    _check_switch(asked)
    return asked


def read_shown(request: ChatRequest) -> FieldValue[bool] | None:
    """Whether the response is to have the thinking; None if the request does not say.

    Raises:
        BadRequest: if two fields contradict each other; both are named.
    """
    excluded = (request.reasoning or Reasoning()).exclude
    return _agreed(
        _some(
            {
                "reasoning.exclude": None if excluded is None else not excluded,
                "include_reasoning": request.include_reasoning,
            }
        )
    )


def contradiction(one: FieldValue[object], other: FieldValue[object]) -> BadRequest:
    """The error of two fields that cannot both hold."""
    return BadRequest(
        f"'{one.field}' is {_shown(one)}, but '{other.field}' is {_shown(other)}: "
        "leave one of them out",
        param=one.field,
    )


def _maxima(request: Generation) -> Iterator[FieldValue[int]]:
    return _some(
        {
            "max_thinking_tokens": request.max_thinking_tokens,
            "thinking.budget_tokens": (request.thinking or Thinking()).budget_tokens,
            "thinking_token_budget": request.thinking_token_budget,
            "thinking_budget": request.thinking_budget,
            "nvext.max_thinking_tokens": (request.nvext or NvExt()).max_thinking_tokens,
            "reasoning_budget_tokens": request.reasoning_budget_tokens,
            "thinking_budget_tokens": request.thinking_budget_tokens,
            "reasoning_max_tokens": request.reasoning_max_tokens,
            "reasoning.max_tokens": (request.reasoning or Reasoning()).max_tokens,
        }
    )


def _tier(request: Generation) -> FieldValue[str] | None:
    if request.budget_tier is not None:
        return FieldValue("budget_tier", request.budget_tier)
    auto = request.thinking is not None and request.thinking.type in ROUTED
    return FieldValue("thinking.type", AUTO) if auto else None


def _efforts(request: Generation) -> Iterator[FieldValue[Effort]]:
    return _some(
        {
            "reasoning_effort": request.reasoning_effort,
            "reasoning.effort": (request.reasoning or Reasoning()).effort,
            "think": request.think if isinstance(request.think, Effort) else None,
        }
    )


def _switches(request: Generation) -> Iterator[FieldValue[bool]]:
    kind = (request.thinking or Thinking()).type
    template = request.template_switches
    return _some(
        {
            "thinking.type": None if kind in (None, *ROUTED) else kind == "enabled",
            "enable_thinking": request.enable_thinking,
            "chat_template_kwargs.enable_thinking": template.enable_thinking,
            "chat_template_kwargs.thinking": template.thinking,
            "reasoning.enabled": (request.reasoning or Reasoning()).enabled,
            "think": request.think if isinstance(request.think, bool) else None,
        }
    )


def _some(values: Mapping[str, T | None]) -> Iterator[FieldValue[T]]:
    return (FieldValue(field, value) for field, value in values.items() if value is not None)


def _agreed(given: Iterator[FieldValue[T]]) -> FieldValue[T] | None:
    """The one value that fields of the same meaning give."""
    first = next(given, None)
    for other in given:
        if first is not None and other.value != first.value:
            raise contradiction(first, other)
    return first


def _check_switch(asked: BudgetRequest) -> None:
    """Refuse numbers that contradict the switch."""
    if asked.enabled is None:
        return
    if asked.enabled.value:
        if asked.maximum is not None and asked.maximum.value == 0:
            raise contradiction(asked.maximum, asked.enabled)
        return
    for number in (asked.maximum, asked.minimum, asked.continuations):
        if number is not None and number.value != 0:
            raise contradiction(number, asked.enabled)


def _shown(given: FieldValue[object]) -> str:
    """The value as the client wrote it."""
    if not isinstance(given.value, bool):
        return str(given.value)
    if given.field == "thinking.type":
        return "enabled" if given.value else "disabled"
    return str(given.value is (given.field != "reasoning.exclude")).lower()
