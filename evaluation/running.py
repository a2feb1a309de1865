"""Runs settings over questions; what was asked already is not asked again."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

from evaluation.asking import Examiner, Row, Setting
from evaluation.tasks import Question


class BadStore(ValueError):
    """A file of rows that cannot be gone on with."""


class Store:
    """Rows in a file of JSON lines, each written as soon as it is there."""

    def __init__(self, path: Path) -> None:
        """Open it, and read what is there.

        A last line that was cut off, as by a kill, is dropped.

        Raises:
            BadStore: if it is something else.
        """
        self._path = path
        self.rows = read_rows(path)
        self._file: TextIO | None = None

    def __enter__(self) -> "Store":
        self._file = self._path.open("w", encoding="utf-8")
        for row in self.rows:
            self._write(row)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        self._write(row)

    def _write(self, row: Row) -> None:
        if self._file is None:
            raise RuntimeError("the store is not open")
        self._file.write(json.dumps(row.to_json()) + "\n")
        self._file.flush()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file.

    Raises:
        BadStore: if it holds something else.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    try:
        return [Row(**json.loads(line)) for line in lines]
    except (TypeError, ValueError) as error:
        raise BadStore(f"{path} holds no rows of an evaluation: {error}") from error


def outstanding(
    settings: Sequence[Setting], questions: Sequence[Question], samples: int, rows: Iterable[Row]
) -> list[tuple[Setting, Question, int]]:
    """What is still to be asked; sample by sample, so that a run that is cut short is even."""
    done = {row.key for row in rows}
    return [
        (setting, question, sample)
        for sample in range(samples)
        for question in questions
        for setting in settings
        if (setting.name, question.id, sample) not in done
    ]


async def run(
    examiner: Examiner,
    work: Sequence[tuple[Setting, Question, int]],
    store: Store,
    at_a_time: int,
    tell: Callable[[Row], None],
) -> None:
    """Ask all of it; what came until a failure is kept.

    Raises:
        Refused: if the server does not answer.
        Miscounted: if its accounts are wrong.
    """
    queue = iter(work)

    async def ask_on() -> None:
        for setting, question, sample in queue:
            row = await examiner.ask(setting, question, sample)
            store.add(row)
            tell(row)

    async with _group() as tasks:
        tasks += [asyncio.create_task(ask_on()) for _ in range(min(at_a_time, len(work)))]


@asynccontextmanager
async def _group() -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that end together: the first failure ends all, and is raised as it is."""
    tasks: list[asyncio.Task[None]] = []
    try:
        yield tasks
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
