"""Rows in a file, each kept as soon as it is there."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.run_config import RunConfig

PROTOCOL = "protocol"


class BadStore(ValueError):
    """A file of rows that cannot be gone on with."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file holds.

    Attributes:
        protocol: what its rows have in common.
        rows: the answers, as they came.
    """

    protocol: RunConfig
    rows: list[AnswerRecord]


class Store:
    """A file of JSON lines: the protocol, then a line for each row."""

    def __init__(self, path: Path, protocol: RunConfig) -> None:
        """Read what is there.

        A last line that was cut off, as by a kill, is dropped.

        Args:
            path: the file; there need be none.
            protocol: of the rows that will be added.

        Raises:
            BadStore: if it holds something else, or rows of another protocol.
        """
        self._path = path
        self._protocol = protocol
        self._file: TextIO | None = None
        self.rows: list[AnswerRecord] = []
        if path.exists() and path.stat().st_size:
            kept = read_store(path)
            if differences := kept.protocol.differences(protocol):
                raise BadStore(
                    f"{path} holds a run that differs in {', '.join(differences)}: "
                    "take another file for this one"
                )
            self.rows = kept.rows

    def __enter__(self) -> "Store":
        # What is there is paid for: it is gone on with, never written anew.
        whole = _whole_lines(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        self._file.truncate(whole)
        if not whole:
            self._write({PROTOCOL: self._protocol.to_json()})
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: AnswerRecord) -> None:
        """Keep a row."""
        self._write(row.to_json())
        self.rows.append(row)

    def _write(self, line: object) -> None:
        if self._file is None:
            raise RuntimeError("the store is not open")
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def read_store(path: Path) -> Kept:
    """What a file holds.

    Raises:
        BadStore: if there is no such file, or it holds something else.
    """
    try:
        content = path.read_bytes()[: _whole_lines(path)]
        first, *lines = content.decode().split("\n")[:-1]
        protocol = RunConfig(**json.loads(first)[PROTOCOL])
        return Kept(protocol, [AnswerRecord.from_json(json.loads(line)) for line in lines])
    except OSError as error:
        raise BadStore(f"{path} cannot be read: {error.strerror}") from error
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise BadStore(f"{path} holds no run of an evaluation: {error!r}") from error


def _whole_lines(path: Path) -> int:
    """How many bytes there are up to the end of the last line that has one."""
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
