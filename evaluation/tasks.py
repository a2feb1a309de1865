"""Questions with known answers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

GROUP = "proctor.tasks"
"""Entry points of generated tasks: functions from a count and a seed to rows."""

QUESTION_FIELDS = ("question", "problem", "prompt")
"""Fields of a row that may hold the question, in this order."""


class TaskError(ValueError):
    """A task does not exist or is invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question.

    Attributes:
        id: unique in its task.
        text: the prompt.
        answer: the right answer, as the scorer expects it.
    """

    id: str
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """The questions of a task.

    Attributes:
        questions: the questions, each prompt once.
        duplicates: the number of rows that were left out, since an earlier one has their prompt.
        contradicting: the number of these whose right answer is another one.
    """

    questions: list[Question]
    duplicates: int = 0
    contradicting: int = 0

    @property
    def notice(self) -> str | None:
        """What was left out, as a sentence, or None if nothing was."""
        if not self.duplicates:
            return None
        others = f", {self.contradicting} of them with another answer" if self.contradicting else ""
        rows = "1 row is" if self.duplicates == 1 else f"{self.duplicates:,} rows are"
        return f"{rows} left out: the same prompt is in an earlier row{others}"


def load_task(task: str, template: str, count: int | None, seed: int) -> Task:
    """Load the questions of a task.

    Rows with the same prompt are one question: several would make the intervals too narrow.

    Args:
        task: a file of JSON lines with `question` (or `problem`, or `prompt`) and `answer`, as in
            GSM8K and MATH, or the name of an entry point of `proctor.tasks`.
        template: the prompt, with fields of the row in braces, such as `{question}`.
        count: the number of rows; None is all of a file, and 100 of a generated task.
        seed: the seed of a generated task.

    Raises:
        TaskError: if there is no such task, or a row is invalid.
    """
    path = Path(task)
    if path.exists():
        rows: Iterable[Mapping[str, Any]] = _lines(path)
    else:
        rows = _generate(task, 100 if count is None else count, seed)
    questions = [_question(index, row, template) for index, row in enumerate(rows)][:count]
    if len({question.id for question in questions}) < len(questions):
        raise TaskError(f"{task}: two questions have the same id")
    if not questions:
        raise TaskError(f"{task}: it has no questions")
    return _deduplicate(questions)


def _deduplicate(questions: Iterable[Question]) -> Task:
    first: dict[str, Question] = {}
    others = [
        question
        for question in questions
        if first.setdefault(question.text.strip(), question) is not question
    ]
    contradicting = sum(first[each.text.strip()].answer != each.answer for each in others)
    return Task([*first.values()], len(others), contradicting)


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    # Not splitlines(): JSON may contain unescaped Unicode line separators.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TaskError(f"{path}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: must be a JSON object")
        rows.append(row)
    return rows


def _generate(task: str, count: int, seed: int) -> Iterable[Mapping[str, Any]]:
    known = {point.name: point for point in entry_points(group=GROUP)}
    if task not in known:
        names = ", ".join(sorted(known)) or "none"
        raise TaskError(f"there is no file and no task '{task}'; available tasks: {names}")
    rows: Iterable[Mapping[str, Any]] = known[task].load()(count, seed)
    return rows


def _question(index: int, row: Mapping[str, Any], template: str) -> Question:
    text = next((row[name] for name in QUESTION_FIELDS if isinstance(row.get(name), str)), None)
    if text is None or row.get("answer") is None:
        raise TaskError(f"row {index + 1}: 'question' and 'answer' are required")
    try:
        prompt = template.format_map({**row, "question": text})
    except (KeyError, IndexError, ValueError) as error:
        raise TaskError(
            f"row {index + 1} does not have the fields of the template: {error!r}"
        ) from error
    # In GSM8K's files the solution ends with "#### 42".
    answer = str(row["answer"]).rpartition("####")[2].strip()
    return Question(str(row.get("id", index)), prompt, answer)
