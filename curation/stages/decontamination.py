"""The stage `decontamination`: no question of an evaluation may be trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.readers import fields
from proctor.curation.readers.files import Unreadable, read_records
from proctor.curation.readers.shapes import parse
from proctor.curation.rows import Row
from proctor.curation.stages.base import Dropped, StageOptions
from proctor.curation.text.ngrams import LENGTH, EvaluationIndex


class DecontaminationOptions(StageOptions):
    """Drop questions that share words in a row with one of an evaluation.

    Attributes:
        against: the files of evaluations, with their questions in `question`, `problem` or
            `prompt`, or in one of the shapes of an input.
        ngram: the number of words that a question must share with one of an evaluation.
    """

    against: tuple[Path, ...] = Field(min_length=1)
    ngram: int = Field(default=LENGTH, ge=1)

    def files(self) -> tuple[Path, ...]:
        """Return the files of evaluations."""
        return self.against

    def build(self, context: Context) -> "Decontamination":
        """Create the stage, with all questions of the evaluations in memory."""
        return Decontamination(read_index(self.against, context.folder, self.ngram))


class Decontamination:
    """Drops questions that share an n-gram with one of an evaluation; each is judged alone."""

    name = "decontamination"

    def __init__(self, index: EvaluationIndex) -> None:
        self._index = index

    def judge(self, row: Row) -> Dropped | None:
        found = self._index.find(row.question)
        if found is None:
            return None
        name, match = found
        reason = "in an evaluation" if name == "words" else "in an evaluation, as normalized"
        return Dropped(reason, f"{match.source}: {match.text}")


def read_index(against: Sequence[Path], folder: Path, ngram: int = LENGTH) -> EvaluationIndex:
    """Index the questions of evaluations.

    Raises:
        CurationError: if a file cannot be read, or has a row without a question.
    """
    return EvaluationIndex(_questions(against, folder), ngram)


def _questions(against: Sequence[Path], folder: Path) -> Iterator[tuple[str, str]]:
    for path in against:
        for number, record in enumerate(read_records(folder / path), 1):
            if isinstance(record, Unreadable):
                raise CurationError(f"{path}, row {number}: {record.reason} ({record.detail})")
            question = fields.text_of(record, fields.QUESTION)
            if not question:
                parsed = parse(record)
                question = "" if isinstance(parsed, Unreadable) else parsed.question
            if not question:
                raise CurationError(
                    f"{path}, row {number}: no question in {', '.join(fields.QUESTION)}"
                )
            yield f"{path.name} row {number}", question
