"""What a stage is: it judges one row after the other."""

from dataclasses import dataclass
from typing import Protocol

from proctor.curation.options import Context, Options
from proctor.curation.rows import Row


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a stage drops a row.

    Attributes:
        reason: what is counted, such as `truncated trace`: one of the few that the stage has.
        detail: what shows it in this row, such as the text that matches; for the report.
    """

    reason: str
    detail: str = ""


class Stage(Protocol):
    """Judges rows in their order.

    A stage whose verdict depends on earlier rows, such as deduplication, keeps what it needs of
    them in memory that is small beside the rows.
    """

    @property
    def name(self) -> str:
        """The name of its table in a recipe."""

    def judge(self, row: Row) -> Dropped | None:
        """Return why the row is dropped, or None if it is kept."""


class StageOptions(Options):
    """The options of a stage."""

    def build(self, context: Context) -> Stage:
        """Create the stage.

        Raises:
            CurationError: if a file cannot be read, or a dependency is not installed.
        """
        raise NotImplementedError
