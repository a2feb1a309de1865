"""The stage `difficulty`: judges rows by measured answers."""

from collections.abc import Mapping, Sequence

from proctor.curation.difficulty.measured import SolvedQuestions, solved_by
from proctor.curation.difficulty.questions import Questions, Unaskable
from proctor.curation.difficulty.rule import NOT_MEASURED, Judge, Solved, verdict
from proctor.curation.rows import Row
from proctor.curation.stages.base import Dropped


class Difficulty:
    """Keeps rows whose question shows the reasoning delta."""

    name = "difficulty"

    def __init__(
        self,
        judges: Sequence[Judge],
        questions: Questions,
        solved: Mapping[str, SolvedQuestions],
    ) -> None:
        """Create the stage.

        Args:
            judges: the models.
            questions: makes questions of rows, as when they were measured.
            solved: what each model solves, by its name.
        """
        self._judges = judges
        self._questions = questions
        self._solved = solved

    def judge(self, row: Row) -> Dropped | None:
        """Return why the row is dropped, or None if it is kept."""
        try:
            question = self._questions.of(row)
            known = solved_by(self._solved, question.id)
            reason = verdict(self._judges, known)
            if reason == NOT_MEASURED and not known:
                self._questions.check(question)
        except Unaskable as error:
            return Dropped(error.reason, error.detail)
        return None if reason is None else Dropped(reason, _describe(known))


def _describe(known: Solved) -> str:
    return ", ".join(
        f"{name} {mode}: {'solved' if right else 'not solved'}"
        for (name, mode), right in known.items()
    )
