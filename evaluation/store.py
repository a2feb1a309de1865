"""A file of rows, each written as soon as it arrives."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import TextIO

from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.run_config import RunConfig

CONFIG_KEY = "protocol"
BLOCK = 1 << 16
"""Bytes that are read at a time in search of the last line end."""


class StoreError(ValueError):
    """A file of rows cannot be read, or cannot be continued."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """The content of a file.

    Attributes:
        config: the parameters of all rows.
        rows: the answers, in the order of their arrival.
    """

    config: RunConfig
    rows: list[AnswerRecord]


class Store:
    """A file of JSON lines: the run's parameters, then a line for each row."""

    def __init__(self, path: Path, config: RunConfig, keep_texts: bool = True) -> None:
        """Read the existing rows.

        An incomplete last line, as after a kill, is dropped.

        Args:
            path: the file, which need not exist.
            config: the parameters of the rows that will be added.
            keep_texts: whether `rows` have the texts of the responses, which the file always has;
                without them tens of thousands of rows fit into memory.

        Raises:
            StoreError: if the file is not a run's, or its parameters differ.
        """
        self._path = path
        self._config = config
        self._keep_texts = keep_texts
        self._file: TextIO | None = None
        self.rows: list[AnswerRecord] = []
        if path.exists() and path.stat().st_size:
            if differences := read_config(path).differences(config):
                raise StoreError(
                    f"{path} holds a run that differs in {', '.join(differences)}: "
                    "use another file for this run"
                )
            self.rows = [self._kept(row) for row in read_rows(path)]

    def __enter__(self) -> "Store":
        # Append only: the existing answers were paid for, and must survive a crash.
        whole = _whole_lines(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        self._file.truncate(whole)
        if not whole:
            self._write({CONFIG_KEY: self._config.to_json()})
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: AnswerRecord) -> None:
        """Append a row."""
        self._write(row.to_json())
        self.rows.append(self._kept(row))

    def _kept(self, row: AnswerRecord) -> AnswerRecord:
        return row if self._keep_texts else row.without_texts()

    def _write(self, line: object) -> None:
        if self._file is None:
            raise RuntimeError("the store is not open")
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def read_store(path: Path) -> StoredRun:
    """Read a file.

    Raises:
        StoreError: if the file cannot be read, or is not a run's.
    """
    return StoredRun(read_config(path), [*read_rows(path)])


def read_config(path: Path) -> RunConfig:
    """Read the parameters of a file's rows; raises StoreError as `read_store` does."""
    with _store_errors(path), path.open("rb") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            raise ValueError("its first line is incomplete")
        return RunConfig(**json.loads(first)[CONFIG_KEY])


def read_rows(path: Path) -> Iterator[AnswerRecord]:
    """Read the rows one by one; raises StoreError as `read_store` does."""
    with _store_errors(path), path.open("rb") as file:
        file.readline()
        for line in file:
            if line.endswith(b"\n"):
                yield AnswerRecord.from_json(json.loads(line))


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} does not hold an evaluation run: {error!r}") from error


def _whole_lines(path: Path) -> int:
    """Return the number of bytes up to the last line end."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        end = file.seek(0, SEEK_END)
        while end:
            begin = file.seek(max(0, end - BLOCK))
            line_end = file.read(end - begin).rfind(b"\n")
            if line_end >= 0:
                return begin + line_end + 1
            end = begin
    return 0
