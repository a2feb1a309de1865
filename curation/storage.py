"""Rows as JSON lines, and files that exist only once they are complete."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any

import orjson

from proctor.curation.rows import Row


def to_line(value: Any) -> bytes:
    """Return a value as a line of JSON, the same bytes for equal values."""
    return orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE)


def row_to_line(row: Row) -> bytes:
    """Return a row as a line of JSON."""
    return to_line(asdict(row))


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file that `row_to_line` wrote."""
    with path.open("rb") as lines:
        for line in lines:
            yield Row(**orjson.loads(line))


@contextmanager
def complete_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name when the block ends, and not if it raises."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, completely or not at all."""
    with complete_file(path) as file:
        file.write(
            orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )


def digest_of_file(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def digest_of(values: Iterable[Any]) -> str:
    """Return the digest of values that JSON can hold."""
    digest = sha256()
    for value in values:
        digest.update(orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS) + b"\n")
    return digest.hexdigest()
