"""What one run holds fixed while it varies the budget."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from proctor.evaluation.conditions import BUDGET_FIELD


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What all rows of a file have in common; rows made otherwise are not to be mixed with them.

    Attributes:
        model: the model's name.
        task: the file's name, or the name of the task that is made.
        template: what is asked, with the question in braces.
        scorer: the scorer's name.
        temperature: of every request.
        top_p: of every request.
        seed: of the task, and of the first sample of each question; the next one's
            is one more.
        budget_field: what the server calls a cap on the thinking.
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
        """In words, what is not the same in both."""
        return [
            f"{field.name} ({getattr(self, field.name)!r}, {getattr(other, field.name)!r})"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)
