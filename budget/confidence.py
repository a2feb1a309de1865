"""Early exits by the model's confidence in its own thinking, after DeepConf (arXiv 2508.15260)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proctor.budget.errors import BudgetError
from proctor.budget.outcome import EndReason

TOP_K = 20
"""A token's confidence is the negative mean of the log probabilities of this many most likely
tokens: high where one token is certain and all others are far behind."""


@dataclass(frozen=True, slots=True)
class ConfidenceExit:
    """When thinking ends early by the confidence of its sampled tokens.

    Their mean is taken over consecutive windows that do not overlap.

    Attributes:
        window: the number of tokens in a window.
        threshold: the mean from which on a window counts as settled; None for never.
        patience: how many windows in a row must count as settled.
        floor: the mean below which the thinking is lost; None for never.
    """

    window: int
    threshold: float | None
    patience: int
    floor: float | None

    def __post_init__(self) -> None:
        if self.window < 1 or self.patience < 1:
            raise BudgetError(
                "thinking.early_exit", "the window and the patience must be at least 1"
            )

    def to_wire(self) -> dict[str, Any]:
        """Return the numbers as JSON-compatible data."""
        return {
            "window": self.window,
            "threshold": self.threshold,
            "patience": self.patience,
            "floor": self.floor,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "ConfidenceExit":
        """Create it from the result of `to_wire`.

        Raises:
            BudgetError: if the mapping is malformed.
        """
        try:
            return cls(
                int(wire["window"]),
                _optional_float(wire["threshold"]),
                int(wire["patience"]),
                _optional_float(wire["floor"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BudgetError("extra_args", f"malformed confidence exit: {error}") from error


class ConfidenceWindow:
    """The windows of one choice: the reference for the processors' arrays."""

    def __init__(self, settings: ConfidenceExit) -> None:
        self._settings = settings
        self._sum = 0.0
        self._count = 0
        self._streak = 0

    def push(self, confidence: float) -> EndReason | None:
        """Take the confidence of a sampled thinking token; return why the thinking ends, if so."""
        settings = self._settings
        self._sum += confidence
        self._count += 1
        if self._count < settings.window:
            return None
        mean = self._sum / self._count
        self._sum, self._count = 0.0, 0
        if settings.floor is not None and mean < settings.floor:
            self._streak = 0
            return EndReason.UNSURE
        is_settled = settings.threshold is not None and mean >= settings.threshold
        self._streak = self._streak + 1 if is_settled else 0
        return EndReason.SETTLED if self._streak >= settings.patience else None


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)
