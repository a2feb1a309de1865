"""Questions with known answers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

GROUP = "proctor.tasks"
"""Entry points of tasks that are made: functions from a count and a seed to rows."""

QUESTIONS = ("question", "problem", "prompt")
"""Names under which files have the question."""


class BadTask(ValueError):
    """A task that cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question.

    Attributes:
        id: unique in its task.
        text: what is asked.
        answer: what is right, for the scorer.
    """

    id: str
    text: str
    answer: str


def load_task(task: str, template: str, count: int | None, seed: int) -> list[Question]:
    """The questions of a task.

    Args:
        task: a file of JSON lines with `question` (or `problem`) and `answer`, as GSM8K and
            MATH are given, or the name of an entry point of `proctor.tasks`.
        template: what is asked, with the row's fields in braces, `{question}` among them.
        count: how many; None is all of a file, and 100 of what is made.
        seed: of what is made.

    Raises:
        BadTask: if there is no such task, or a row is wrong.
    """
    path = Path(task)
    if path.exists():
        rows: Iterable[Mapping[str, Any]] = _lines(path)
    else:
        rows = _made(task, 100 if count is None else count, seed)
    questions = [_question(at, row, template) for at, row in enumerate(rows)][:count]
    if len({question.id for question in questions}) < len(questions):
        raise BadTask(f"{task}: two questions have one id")
    if not questions:
        raise BadTask(f"{task}: there is no question in it")
    return questions


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    # JSON may hold line separators of Unicode's as they are, at which splitlines would cut.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadTask(f"{path}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise BadTask(f"{path}, line {number}: it is no object")
        rows.append(row)
    return rows


def _made(task: str, count: int, seed: int) -> Iterable[Mapping[str, Any]]:
    known = {point.name: point for point in entry_points(group=GROUP)}
    if task not in known:
        names = ", ".join(sorted(known)) or "none"
        raise BadTask(f"there is no file '{task}', and no task of that name: {names}")
    rows: Iterable[Mapping[str, Any]] = known[task].load()(count, seed)
    return rows


def _question(at: int, row: Mapping[str, Any], template: str) -> Question:
    text = next((row[name] for name in QUESTIONS if isinstance(row.get(name), str)), None)
    if text is None or row.get("answer") is None:
        raise BadTask(f"row {at + 1}: it needs 'question' and 'answer'")
    try:
        asked = template.format_map({**row, "question": text})
    except (KeyError, IndexError, ValueError) as error:
        raise BadTask(f"the template cannot be filled from row {at + 1}: {error!r}") from error
    # GSM8K's own files end the worked solution with "#### 42".
    answer = str(row["answer"]).rpartition("####")[2].strip()
    return Question(str(row.get("id", at)), asked, answer)
