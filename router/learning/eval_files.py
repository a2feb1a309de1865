"""Reads the answers of `proctor eval`, and the questions that they are to."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proctor.router.conversation import Conversation
from proctor.router.learning.answers import Answer, Ending

QUESTION_FIELDS = ("question", "problem", "prompt")
"""Fields of a line that may hold the question, in this order; as `proctor eval` reads them."""

TIER_CONDITIONS = ("tier", "effort")
"""Kinds of conditions under which a tier answers as it does for other requests."""

OWN_OPTIONS = ("early_exit", "parallel")
"""Options of a condition that change how a tier answers."""


class EvalFileError(ValueError):
    """A file cannot be read; the message names it, and the line if there is one."""


def read_eval(run: Path, questions: Path) -> list[Answer]:
    """Return the answers of a run under tiers; other conditions are left out.

    Args:
        run: the file that `proctor eval run` wrote.
        questions: the task's file of JSON lines.

    Raises:
        EvalFileError: if a file cannot be read or does not fit the other.
    """
    (first, head), *rows = _lines(run)
    try:
        template = str(head["protocol"]["template"])
    except (KeyError, TypeError) as error:
        raise EvalFileError(f"{run}, line {first}: not a run of 'proctor eval'") from error
    prompts = _prompts(questions, template)
    answers = []
    for number, row in rows:
        try:
            answer = _answer(row, prompts)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise EvalFileError(f"{run}, line {number}: {error!r}") from error
        if answer is not None:
            answers.append(answer)
    return answers


def _answer(row: Mapping[str, Any], prompts: Mapping[str, str]) -> Answer | None:
    setting, response = row["setting"], row["response"]
    choice = response["choices"][0]
    thinking = choice.get("thinking") or {}
    tier = thinking.get("tier")
    own = any(setting.get(option) for option in OWN_OPTIONS)
    if setting["kind"] not in TIER_CONDITIONS or tier is None or own:
        return None
    question = str(row["question"])
    if question not in prompts:
        raise ValueError(f"there is no question '{question}' in the file of questions")
    ending = Ending.of(
        str(thinking.get("end_reason")),
        str(choice.get("finish_reason")),
        int(thinking.get("spilled_tokens") or 0),
    )
    return Answer(
        Conversation.of(prompts[question]),
        str(tier),
        int(thinking["tokens"]),
        ending,
        float(response["created"]),
        float(row["score"]),
    )


def _prompts(path: Path, template: str) -> dict[str, str]:
    """Return the prompts of a task by the ids of its questions."""
    prompts = {}
    for index, (number, row) in enumerate(_lines(path)):
        try:
            question = next(row[name] for name in QUESTION_FIELDS if isinstance(row.get(name), str))
            text = template.format_map({**row, "question": question})
        except (AttributeError, IndexError, KeyError, StopIteration, ValueError) as error:
            raise EvalFileError(f"{path}, line {number}: no question: {error!r}") from error
        prompts[str(row.get("id", index))] = text
    return prompts


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the objects of a file of JSON lines, with the numbers of their lines.

    An incomplete last line, as after a kill, is dropped.
    """
    try:
        # Not splitlines(): JSON may contain unescaped Unicode line separators.
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EvalFileError(f"{path}: {error}") from error
    last = len(lines)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            if number == last:
                return
            raise EvalFileError(f"{path}, line {number}: {error}") from error
    if not any(line.strip() for line in lines):
        raise EvalFileError(f"{path} is empty")
