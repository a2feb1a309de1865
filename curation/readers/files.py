"""Reads the records of a data set's files one after the other."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import orjson

from proctor.curation.errors import CurationError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".arrow")
BATCH_ROWS = 256
"""Rows of a Parquet or Arrow file that are in memory at a time."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that cannot be read.

    Attributes:
        reason: why: one of the few that are counted.
        detail: where it is, or what it holds; for the report.
    """

    reason: str
    detail: str = ""


def data_files(path: Path) -> list[Path]:
    """Return the file, or all data files below the folder, by name.

    Raises:
        CurationError: if there is none, or it is of a kind that is not read.
    """
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if _is_data(each))
        if not found:
            raise CurationError(f"{path} has no files that end in {', '.join(SUFFIXES)}")
        return found
    if not path.exists():
        raise CurationError(f"{path} does not exist")
    if not path.name.endswith(SUFFIXES):
        raise CurationError(f"{path} does not end in {', '.join(SUFFIXES)}")
    return [path]


def read_records(path: Path) -> Iterator[Record | Unreadable]:
    """Yield the records of a file or folder, in the order of the files' names.

    Raises:
        CurationError: if a file cannot be read at all.
    """
    for file in data_files(path):
        try:
            yield from _read(file)
        except (OSError, EOFError) as error:
            raise CurationError(f"{file} cannot be read: {error}") from error


def _is_data(path: Path) -> bool:
    # Of Hugging Face's own files beside the data, dataset_info.json describes it, and cache-….arrow
    # repeats it.
    other = path.suffix == ".json" or path.name.startswith(("cache-", "."))
    return path.is_file() and path.name.endswith(SUFFIXES) and not other


def _read(path: Path) -> Iterator[Record | Unreadable]:
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".arrow":
        return _arrow(path)
    return _json_lines(path)


def _json_lines(path: Path) -> Iterator[Record | Unreadable]:
    with _opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if number == 1 and path.suffix == ".json" and line.lstrip().startswith(b"["):
                raise CurationError(
                    f"{path} is one JSON array, which cannot be read row by row: write a line for "
                    f"each row, for instance by: jq -c '.[]' {path.name} > {path.stem}.jsonl"
                )
            yield _record(line, number)


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _record(line: bytes, number: int) -> Record | Unreadable:
    try:
        record = orjson.loads(line)
    except ValueError as error:
        return Unreadable("invalid JSON", f"line {number}: {error}")
    if not isinstance(record, dict):
        return Unreadable("not a JSON object", f"line {number}")
    return record


def _parquet(path: Path) -> Iterator[Record]:
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from batch.to_pylist()
    except (arrow.ArrowException, ValueError) as error:
        raise CurationError(f"{path} is not a Parquet file that can be read: {error}") from error


def _arrow(path: Path) -> Iterator[Record]:
    """Yield the rows of an Arrow stream, as `datasets` writes it, or of an Arrow file."""
    arrow, _ = _pyarrow()
    try:
        with arrow.memory_map(str(path)) as source:
            for batch in _batches(arrow, source):
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield from batch.slice(start, BATCH_ROWS).to_pylist()
    except (arrow.ArrowException, ValueError) as error:
        raise CurationError(f"{path} is not an Arrow file that can be read: {error}") from error


def _batches(arrow: Any, source: Any) -> Iterator[Any]:
    try:
        stream = arrow.ipc.open_stream(source)
    except arrow.ArrowInvalid:
        source.seek(0)
        file = arrow.ipc.open_file(source)
        yield from (file.get_batch(index) for index in range(file.num_record_batches))
    else:
        yield from stream


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise CurationError(
            f"Parquet and Arrow files require the extra 'curate': {error}"
        ) from error
    return pyarrow, parquet
