"""The inputs of a recipe, read as rows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proctor.curation.options import Options
from proctor.curation.readers import fields
from proctor.curation.readers.files import Record, Unreadable, read_records
from proctor.curation.readers.markers import split_thinking
from proctor.curation.readers.shapes import Parsed, parse
from proctor.curation.rows import Row
from proctor.curation.storage import row_to_line


class Mapped(Options):
    """The fields of a record that hold the parts of a row, as paths such as `extra.0.text`.

    Attributes:
        question: the question.
        answer: the answer; if `trace` is not set, with the trace within markers.
        trace: the thinking.
        reference: the right answer.
        domain: the subject.
        id: the row's id; none takes its position.
    """

    question: str
    answer: str
    trace: str | None = None
    reference: str | None = None
    domain: str | None = None
    id: str | None = None


class Input(Options):
    """A data set.

    Attributes:
        path: a file of JSON lines (also `.gz`), Parquet or Arrow, or a folder of such files.
        name: the name of the collection, for rows that name no source; ids begin with it. The
            default is the name of the file, and ids as they are.
        fields: which fields hold what, for a shape that is not recognized.
    """

    path: Path
    name: str = ""
    fields: Mapped | None = None


def read_input(data: Input, folder: Path, seen: set[str]) -> Iterator[Row | Unreadable]:
    """Yield the rows of an input, and what cannot be read of it.

    Args:
        data: the input.
        folder: the folder that a relative path starts from.
        seen: the ids so far, to which the input's are added.

    Raises:
        CurationError: if a file cannot be read at all.
    """
    for position, record in enumerate(read_records(folder / data.path)):
        row = record if isinstance(record, Unreadable) else _row(record, position, data)
        if isinstance(row, Row):
            row = _checked(row, seen)
        yield row


def to_row(record: Record, parsed: Parsed, row_id: str, source: str) -> Row:
    """Return the row of a parsed record."""
    reference = fields.first_text(
        record, [name for name in fields.REFERENCE if name not in parsed.used]
    )
    used = {*parsed.used, reference[0] if reference else ""}
    return Row(
        id=row_id,
        question=parsed.question,
        trace=parsed.trace,
        answer=parsed.answer,
        reference=reference[1] if reference else None,
        domain=fields.text_of(record, fields.DOMAIN) or None,
        source=fields.text_of(record, fields.SOURCE) or source,
        metadata={name: value for name, value in record.items() if name not in used},
    )


def _row(record: Record, position: int, data: Input) -> Row | Unreadable:
    source = data.name or data.path.name.partition(".")[0]
    if data.fields is not None:
        return _mapped(record, data.fields, position, source, data.name)
    parsed = parse(record)
    if isinstance(parsed, Unreadable):
        return parsed
    return to_row(record, parsed, _id(record, fields.ID, position, data.name), source)


def _checked(row: Row, seen: set[str]) -> Row | Unreadable:
    """Return the row if its id is new and it can be stored, and remember the id."""
    if row.id in seen:
        return Unreadable("id used twice", row.id)
    try:
        row_to_line(row)
    except TypeError as error:
        return Unreadable("cannot be stored", f"{row.id}: {error}")
    seen.add(row.id)
    return row


def _mapped(
    record: Record, names: Mapped, position: int, source: str, prefix: str
) -> Row | Unreadable:
    texts = {
        name: fields.joined(fields.look_up(record, path)) if path else ""
        for name, path in names.model_dump(exclude={"id"}).items()
    }
    if not texts["question"]:
        return Unreadable("no question", f"there is no text at '{names.question}'")
    if names.trace is None:
        thought = split_thinking(texts["answer"])
        texts |= {"trace": thought.trace, "answer": thought.answer}
    used = {path.partition(".")[0] for path in names.model_dump().values() if path}
    return Row(
        id=_id(record, (names.id,) if names.id else (), position, prefix),
        question=texts["question"],
        trace=texts["trace"],
        answer=texts["answer"],
        reference=texts["reference"] or None,
        domain=texts["domain"] or None,
        source=fields.text_of(record, fields.SOURCE) or source,
        metadata={name: value for name, value in record.items() if name not in used},
    )


def _id(record: Mapping[str, Any], names: tuple[str, ...], position: int, prefix: str) -> str:
    own = (fields.look_up(record, name) for name in names)
    found = next(
        (value for value in own if isinstance(value, (str, int)) and value != ""), position
    )
    return f"{prefix}/{found}" if prefix else str(found)
