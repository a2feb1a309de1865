"""Passes budgets to the processor in sampling parameters, and markers in vLLM's configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctor.budget.budgets import TokenBudget
from proctor.budget.confidence import ConfidenceExit
from proctor.budget.errors import BudgetError
from proctor.budget.markers import Markers
from proctor.budget.moves import EMPTY_RECORD, EngineRecord

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

KEY = "proctor"
"""The key in `SamplingParams.extra_args` and in vLLM's `additional_config`."""

SLOW = "proctor_slow_grammar"
"""The key in `SamplingParams.extra_args` of the flag that the grammar is slow to compile."""


WIRE_VERSION = 2
"""The version of the format of budgets. A processor rejects budgets of other versions."""

FIELDS = {"wire", "key", "seed", "budget", "resumed", "record", "movable", "confidence"}


@dataclass(frozen=True, slots=True)
class EngineBudget:
    """The budget of a request, as passed to the processor.

    Attributes:
        key: identifies the request when its attempts are collected.
        seed: the seed for tokens that the processor draws, a signed 64-bit integer.
        budget: the budget in token ids.
        resumed: the number of tokens at the end of the prompt that were generated under this
            budget before, by another engine.
        record: what that engine recorded of them.
        movable: whether the maximum may be moved while the request runs.
        confidence: when the processor ends the thinking early, or None.
    """

    key: str
    seed: int
    budget: TokenBudget
    resumed: int = 0
    record: EngineRecord = EMPTY_RECORD
    movable: bool = False
    confidence: ConfidenceExit | None = None

    @property
    def has_record(self) -> bool:
        """Whether there may be something to record besides the tokens."""
        return self.budget.demands_thinking or self.movable or self.confidence is not None

    def to_extra_args(self) -> dict[str, Any]:
        """Return the entry of `SamplingParams.extra_args`."""
        wire = {
            "wire": WIRE_VERSION,
            "key": self.key,
            "seed": self.seed,
            "budget": self.budget.to_wire(),
            "resumed": self.resumed,
            "record": self.record.to_wire(),
            "movable": self.movable,
            "confidence": None if self.confidence is None else self.confidence.to_wire(),
        }
        return {KEY: wire}


def read(params: "SamplingParams") -> EngineBudget | None:
    """Return the budget in a request's sampling parameters, if any.

    Raises:
        BudgetError: if it is malformed or of another version, or combined with vLLM's own
            budget.
    """
    wire = (params.extra_args or {}).get(KEY)
    if wire is None:
        return None
    if params.thinking_token_budget is not None:
        raise BudgetError(
            "thinking_token_budget",
            "thinking_token_budget of vLLM must not be set: it would override this budget",
        )
    fields = _parse(wire)
    if fields["wire"] != WIRE_VERSION:
        raise BudgetError(
            "extra_args",
            f"extra_args.{KEY}.wire is {fields['wire']!r}, but this engine's processor reads "
            f"version {WIRE_VERSION}: install the same version of Proctor on both",
        )
    budget = TokenBudget.from_wire(fields["budget"])
    try:
        key, seed = str(fields["key"]), int(fields["seed"])
        record = EngineRecord.from_wire(fields["record"])
        resumed, movable = int(fields["resumed"]), bool(fields["movable"])
        wire = fields["confidence"]
        confidence = None if wire is None else ConfidenceExit.from_wire(wire)
        return EngineBudget(key, seed, budget, resumed, record, movable, confidence)
    except (TypeError, ValueError) as error:
        raise BudgetError("extra_args", f"malformed extra_args.{KEY}: {error}") from error


def _parse(wire: object) -> Mapping[str, Any]:
    """Return the fields of a budget, which is a string where vLLM allows no nested values.

    Raises:
        BudgetError: if it is no object with these fields.
    """
    if isinstance(wire, str):
        try:
            wire = json.loads(wire)
        except ValueError as error:
            raise BudgetError("extra_args", f"extra_args.{KEY} is not JSON") from error
    if not isinstance(wire, Mapping) or wire.keys() != FIELDS:
        names = ", ".join(sorted(FIELDS))
        raise BudgetError("extra_args", f"extra_args.{KEY} must be an object with {names}")
    return wire


def is_slow(params: "SamplingParams") -> bool:
    """Return whether a request's grammar is known to be slow to compile."""
    return bool((params.extra_args or {}).get(SLOW))


def markers_of(config: "VllmConfig") -> Markers:
    """Return the markers in vLLM's `additional_config`.

    Raises:
        ValueError: if there are none.
    """
    additional_config = config.additional_config
    if not isinstance(additional_config, dict) or KEY not in additional_config:
        raise ValueError(f"additional_config.{KEY} must contain the thinking markers")
    return Markers.from_wire(additional_config[KEY])


def with_markers(additional_config: object, markers: Markers) -> dict[str, Any]:
    """Return `additional_config` with the markers added, for the workers.

    Raises:
        ValueError: if `additional_config` is not a mapping.
    """
    if not isinstance(additional_config, Mapping):
        raise ValueError("engine.additional_config must be a mapping")
    return {**additional_config, KEY: markers.to_wire()}
