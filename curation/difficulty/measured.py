"""What the files of answers say."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from proctor.curation.difficulty.rule import Mode, Solved
from proctor.evaluation.conditions import Condition
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.store import StoreError, read_config, read_rows

HALF = 0.5

SolvedQuestions = Mapping[tuple[str, Mode], bool]
"""Whether a model solves each question, by the question's id; incomplete ones are absent."""


def read_solved(
    path: Path, config: RunConfig, conditions: Mapping[Mode, Condition], samples: int
) -> SolvedQuestions:
    """Read which questions a model solves.

    Args:
        path: the model's file of answers.
        config: what its answers must have in common.
        conditions: the conditions that count; answers under others are ignored.
        samples: the answers that a question needs under a condition; further ones are ignored.

    Raises:
        StoreError: if the file is missing, cannot be read, or is that of another measurement.
    """
    if not path.exists():
        raise StoreError(f"{path} does not exist: run `proctor curate measure` first")
    if differences := read_config(path).differences(config):
        raise StoreError(
            f"{path} holds answers that differ from the recipe in {', '.join(differences)}: "
            "set another folder, and measure again"
        )
    return solved_questions(read_rows(path), conditions, samples)


def solved_questions(
    rows: Iterable[AnswerRecord], conditions: Mapping[Mode, Condition], samples: int
) -> SolvedQuestions:
    """Return whether each question is solved under each condition, where all samples are there."""
    modes = {condition: mode for mode, condition in conditions.items()}
    scores: dict[tuple[str, Mode], dict[int, float]] = defaultdict(dict)
    for row in rows:
        mode = modes.get(row.condition)
        if mode is not None and row.sample < samples:
            scores[row.question, mode][row.sample] = row.score
    return {
        key: sum(by_sample.values()) > HALF * samples
        for key, by_sample in scores.items()
        if len(by_sample) == samples
    }


def solved_by(solved: Mapping[str, SolvedQuestions], question: str) -> Solved:
    """Return what is known of one question."""
    return {
        (name, mode): by_question[question, mode]
        for name, by_question in solved.items()
        for mode in Mode
        if (question, mode) in by_question
    }
