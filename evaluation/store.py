"""A file of rows, each written as soon as it arrives."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.run_config import RunConfig

CONFIG_KEY = "protocol"


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

    def __init__(self, path: Path, config: RunConfig) -> None:
        """Read the existing rows.

        An incomplete last line, as after a kill, is dropped.

        Args:
            path: the file, which need not exist.
            config: the parameters of the rows that will be added.

        Raises:
            StoreError: if the file is not a run's, or its parameters differ.
        """
        self._path = path
        self._config = config
        self._file: TextIO | None = None
        self.rows: list[AnswerRecord] = []
        if path.exists() and path.stat().st_size:
            stored = read_store(path)
            if differences := stored.config.differences(config):
                raise StoreError(
                    f"{path} holds a run that differs in {', '.join(differences)}: "
                    "use another file for this run"
                )
            self.rows = stored.rows

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
        self.rows.append(row)

    def _write(self, line: object) -> None:
        if self._file is None:
            raise RuntimeError("the store is not open")
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def read_store(path: Path) -> StoredRun:
    """Read a file.

    Raises:
        StoreError: if the file cannot be read, is empty, or is not a run's.
    """
    try:
        if not path.stat().st_size:
            raise StoreError(f"{path} is empty: pass a file that `proctor eval run` wrote")
        content = path.read_bytes()[: _whole_lines(path)]
        first, *lines = content.decode().split("\n")[:-1] or [""]
        config = RunConfig(**json.loads(first)[CONFIG_KEY])
        return StoredRun(config, [AnswerRecord.from_json(json.loads(line)) for line in lines])
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except StoreError:
        raise
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path} does not hold an evaluation run, as `proctor eval run` writes it: {error!r}"
        ) from error


def _whole_lines(path: Path) -> int:
    """Return the number of bytes up to the last line end."""
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
