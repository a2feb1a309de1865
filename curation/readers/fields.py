"""Takes fields out of records."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

QUESTION = ("question", "problem", "prompt", "instruction", "query")
TRACE = ("trace", "reasoning_content", "reasoning", "thinking", "thought", "cot")
ANSWER = ("answer", "completion", "response", "output", "attempt")
REFERENCE = (
    "reference",
    "expected_answer",
    "ground_truth",
    "gold_answer",
    "final_answer",
    "answer",
    "ground_truth_solution",
    "solution",
)
DOMAIN = ("domain", "subject", "category", "cot_type")
SOURCE = ("source", "source_type", "data_source")
ID = ("id", "uuid", "unique_id", "problem_id")


def first_text(record: Mapping[str, Any], names: Iterable[str]) -> tuple[str, str] | None:
    """Return the name and text of the first field that holds a text, or None."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            return name, value.strip()
    return None


def text_of(record: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the first text of these fields; empty if there is none."""
    found = first_text(record, names)
    return found[1] if found else ""


def joined(value: Any) -> str:
    """Return a text, or the texts of a list joined by lines; empty for anything else."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Sequence) and all(isinstance(part, str) for part in value):
        return "\n".join(value).strip()
    return ""


def look_up(record: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as `extra.grade` or `messages.0.content`, or None."""
    if path in record:
        return record[path]
    value: Any = record
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value
