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
        # What is there is paid for: it is gone on with, never written anew.
        self._file = self._path.open("a", encoding="utf-8")
        self._file.truncate(_whole_lines(self._path.read_bytes()))
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: Row) -> None:
        """Keep a row."""
        if self._file is None:
            raise RuntimeError("the store is not open")
        self.rows.append(row)
        self._file.write(json.dumps(row.to_json()) + "\n")
        self._file.flush()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file.

    Raises:
        BadStore: if it holds something else.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    try:
        lines = content[: _whole_lines(content)].decode().split("\n")[:-1]
        return [Row(**json.loads(line)) for line in lines]
    except (TypeError, ValueError) as error:
        raise BadStore(f"{path} holds no rows of an evaluation: {error}") from error


def _whole_lines(content: bytes) -> int:
    """How many bytes there are up to the end of the last line that has one."""
    return content.rfind(b"\n") + 1


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
