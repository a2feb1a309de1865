"""How a budget reaches a processor: in sampling parameters, and in the engine's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctor.budget.budgets import TokenBudget
from proctor.budget.errors import BudgetError
from proctor.budget.markers import Markers

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

KEY = "proctor"
"""Ours in `SamplingParams.extra_args` and in vLLM's `additional_config`."""

SLOW = "proctor_slow_grammar"
"""In `SamplingParams.extra_args`: that its grammar takes long to compile."""


@dataclass(frozen=True, slots=True)
class EngineBudget:
    """What a request carries to the processor.

    Attributes:
        key: names the request, to ask for its record of attempts.
        seed: of the noise for tokens that the processor draws, 64 bits signed.
        budget: the budget in token ids.
    """

    key: str
    seed: int
    budget: TokenBudget

    def to_extra_args(self) -> dict[str, Any]:
        """For `SamplingParams.extra_args`."""
        return {KEY: {"key": self.key, "seed": self.seed, "budget": self.budget.to_wire()}}


def read(params: "SamplingParams") -> EngineBudget | None:
    """The budget that a request carries, if it carries one.

    Raises:
        BudgetError: if it is malformed, or vLLM's own budget stands beside it.
    """
    wire = (params.extra_args or {}).get(KEY)
    if wire is None:
        return None
    if not isinstance(wire, Mapping) or not {"key", "seed", "budget"} <= wire.keys():
        raise BudgetError("extra_args", f"extra_args.{KEY} is not a budget")
    if params.thinking_token_budget is not None:
        raise BudgetError(
            "thinking_token_budget", "vLLM's thinking_token_budget would override this budget"
        )
    budget = TokenBudget.from_wire(wire["budget"])
    return EngineBudget(str(wire["key"]), int(wire["seed"]), budget)


def is_slow(params: "SamplingParams") -> bool:
    """Whether a request's grammar is known to take long to compile."""
    return bool((params.extra_args or {}).get(SLOW))


def markers_of(config: "VllmConfig") -> Markers:
    """The markers in vLLM's `additional_config`.

    Raises:
        ValueError: if there are none: the processor was given without them.
    """
    given = config.additional_config
    if not isinstance(given, dict) or KEY not in given:
        raise ValueError(f"additional_config.{KEY} names no thinking markers")
    return Markers.from_wire(given[KEY])


def with_markers(additional_config: object, markers: Markers) -> dict[str, Any]:
    """An `additional_config` that carries the markers to the workers.

    Raises:
        ValueError: if the one given is not a mapping, and so has no place for them.
    """
    if not isinstance(additional_config, Mapping):
        raise ValueError("engine.additional_config must be a mapping")
    return {**additional_config, KEY: markers.to_wire()}
