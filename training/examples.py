"""Training examples: conversations whose last turn thinks, read from JSON lines."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = Mapping[str, Any]


class DataError(ValueError):
    """A file of examples cannot be trained on; the message says why."""


@dataclass(frozen=True, slots=True)
class Markers:
    """The texts around the thinking, such as `<think>` and `</think>`."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation to learn the last turn of.

    Attributes:
        messages: the messages before the turn, as of OpenAI.
        thinking: the thinking of the turn, without markers or surrounding whitespace.
        answer: the answer after it, without surrounding whitespace.
    """

    messages: Sequence[Message]
    thinking: str
    answer: str


def read_examples(path: Path, markers: Markers) -> list[Example]:
    """Read examples from JSON lines.

    A line is an object with `messages`, as `proctor curate` and OpenAI write them, or with
    `question`, `trace` and `answer`.

    Raises:
        DataError: if there is no example, or a line is none; the message names the line.
    """
    examples = []
    for number, line in _lines(path):
        try:
            examples.append(parse_example(json.loads(line), markers))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    if not examples:
        raise DataError(f"{path}: it has no examples")
    return examples


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        # Not splitlines(): JSON may contain unescaped Unicode line separators.
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if line.strip():
                yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error


def parse_example(row: Any, markers: Markers) -> Example:
    """Return the example of a row.

    The thinking of the last message is in `reasoning_content` or `reasoning`, or in its content
    between the markers.

    Raises:
        ValueError: if the row has no messages, question or thinking, or has a marker in a text.
    """
    if not isinstance(row, Mapping):
        raise ValueError("must be a JSON object")
    if "completion" in row:
        raise ValueError('a rendered row: write the rows with form = "messages"')
    if "messages" in row:
        messages, thinking, answer = _parse_messages(row["messages"], markers)
    else:
        question, thinking, answer = (row.get(name) for name in ("question", "trace", "answer"))
        messages = [{"role": "user", "content": question}]
        if not isinstance(question, str):
            raise ValueError("'messages', or 'question', 'trace' and 'answer', are required")
    if not isinstance(thinking, str) or not thinking.strip():
        raise ValueError("the last turn has no thinking")
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError("the last turn has no answer")
    for marker in (markers.start, markers.end):
        if marker in thinking or marker in answer:
            raise ValueError(f"the marker {marker!r} stands inside the thinking or the answer")
    return Example(tuple(messages), thinking.strip(), answer.strip())


def _parse_messages(messages: Any, markers: Markers) -> tuple[Sequence[Message], Any, Any]:
    """Return the messages before the last turn, and its thinking and answer."""
    if not isinstance(messages, list) or not all(isinstance(each, Mapping) for each in messages):
        raise ValueError("'messages' must be a list of objects")
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        raise ValueError("'messages' must end with a message of the assistant")
    last = messages[-1]
    thinking = last.get("reasoning_content") or last.get("reasoning")
    content = last.get("content")
    if thinking is None and isinstance(content, str) and markers.end in content:
        before, _, content = content.partition(markers.end)
        thinking = before.strip().removeprefix(markers.start)
    return messages[:-1], thinking, content
