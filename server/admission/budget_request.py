"""Reads the budget fields of a request, which have several spellings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from proctor.server.config.budgets import AUTO
from proctor.server.errors import ConflictingFields
from proctor.server.schemas.budget import Effort, NvExt, Reasoning, Thinking
from proctor.server.schemas.generation import ChatRequest, Generation

NO_OPTIONS = Thinking()
ROUTED = (AUTO, "adaptive")
"""Values of `thinking.type` that select the router; "adaptive" is Anthropic's."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class FieldValue(Generic[T_co]):
    """A value and the request's field that it is from."""

    field: str
    value: T_co


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """The budget fields of a request; None if a field is not set.

    Attributes:
        maximum: maximum number of thinking tokens; -1 is no cap.
        minimum: minimum number of thinking tokens.
        continuations: number of attempts to end the thinking to reject.
        tier: a tier's name, or "auto".
        effort: selects a tier.
        enabled: whether thinking is enabled.
        options: the other options of `thinking`.
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
        """The first number that is set: maximum, minimum or continuations."""
        return self.maximum or self.minimum or self.continuations


def read_budget_request(request: Generation) -> BudgetRequest:
    """Return the budget fields of a request, from any of their spellings.

    Raises:
        ConflictingFields: if two fields contradict each other.
    """
    thinking = request.thinking or Thinking()
    budget_request = BudgetRequest(
        maximum=_unique(_maxima(request)),
        minimum=_unique(
            _set_fields(
                {
                    "min_thinking_tokens": request.min_thinking_tokens,
                    "thinking.min_tokens": thinking.min_tokens,
                }
            )
        ),
        continuations=_unique(_set_fields({"thinking.continuations": thinking.continuations})),
        tier=_tier(request),
        effort=_unique(_efforts(request)),
        enabled=_unique(_enabled_fields(request)),
        options=thinking,
    )
    _check_enabled(budget_request)
    return budget_request


def read_include_reasoning(request: ChatRequest) -> FieldValue[bool] | None:
    """Return whether the response includes the reasoning, or None if no field says so.

    Raises:
        ConflictingFields: if two fields contradict each other.
    """
    excluded = (request.reasoning or Reasoning()).exclude
    return _unique(
        _set_fields(
            {
                "reasoning.exclude": None if excluded is None else not excluded,
                "include_reasoning": request.include_reasoning,
            }
        )
    )


def conflict(one: FieldValue[object], other: FieldValue[object]) -> ConflictingFields:
    """Return the error for two fields that contradict each other."""
    return ConflictingFields(one.field, _format(one), other.field, _format(other))


def _maxima(request: Generation) -> Iterator[FieldValue[int]]:
    return _set_fields(
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
    return _set_fields(
        {
            "reasoning_effort": request.reasoning_effort,
            "reasoning.effort": (request.reasoning or Reasoning()).effort,
            "think": request.think if isinstance(request.think, Effort) else None,
        }
    )


def _enabled_fields(request: Generation) -> Iterator[FieldValue[bool]]:
    kind = (request.thinking or Thinking()).type
    template = request.template_switches
    return _set_fields(
        {
            "thinking.type": None if kind in (None, *ROUTED) else kind == "enabled",
            "enable_thinking": request.enable_thinking,
            "chat_template_kwargs.enable_thinking": template.enable_thinking,
            "chat_template_kwargs.thinking": template.thinking,
            "reasoning.enabled": (request.reasoning or Reasoning()).enabled,
            "think": request.think if isinstance(request.think, bool) else None,
        }
    )


def _set_fields(values: Mapping[str, T | None]) -> Iterator[FieldValue[T]]:
    return (FieldValue(field, value) for field, value in values.items() if value is not None)


def _unique(values: Iterator[FieldValue[T]]) -> FieldValue[T] | None:
    """Return the value that fields of the same meaning share."""
    first = next(values, None)
    for other in values:
        if first is not None and other.value != first.value:
            raise conflict(first, other)
    return first


def _check_enabled(request: BudgetRequest) -> None:
    """Reject numbers that contradict `enabled`."""
    if request.enabled is None:
        return
    if request.enabled.value:
        if request.maximum is not None and request.maximum.value == 0:
            raise conflict(request.maximum, request.enabled)
        return
    for number in (request.maximum, request.minimum, request.continuations):
        if number is not None and number.value != 0:
            raise conflict(number, request.enabled)


def _format(field_value: FieldValue[object]) -> str:
    """Return the value as the client has written it."""
    if not isinstance(field_value.value, bool):
        return str(field_value.value)
    if field_value.field == "thinking.type":
        return "enabled" if field_value.value else "disabled"
    return str(field_value.value is (field_value.field != "reasoning.exclude")).lower()
