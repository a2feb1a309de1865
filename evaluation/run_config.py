"""The parameters that a run keeps fixed while it varies the budget."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from proctor.evaluation.conditions import BUDGET_FIELD


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The parameters of all rows of a file; rows with other parameters must not be added to it.

    Attributes:
        model: the model's name.
        task: the file's name, or the name of the generated task.
        template: the prompt, with fields of the row in braces.
        scorer: the scorer's name.
        temperature: the temperature of every request.
        top_p: the `top_p` of every request.
        seed: the seed of the task, and of the first sample of each question; each further sample
            adds one.
        budget_field: the server's request field for a cap on the thinking.
    """

    model: str
    task: str
    template: str
    scorer: str
    temperature: float
    top_p: float
    seed: int
    budget_field: str = BUDGET_FIELD

    def differences(self, other: "RunConfig") -> list[str]:
        """Describe each field that differs: its name, and both values."""
        return [
            f"{field.name} ({getattr(self, field.name)!r}, {getattr(other, field.name)!r})"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as they are stored."""
        return asdict(self)
