"""The pool as files of JSON lines, as `proctor curate` and `proctor eval` read them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.curation.dirt import Label, plant
from bench.curation.kinds.base import Problem
from bench.curation.pool import make_pool
from proctor.curation.rows import Row

POOL, LABELS, SEEN, UNSEEN = "pool.jsonl", "labels.jsonl", "seen.jsonl", "unseen.jsonl"


def write_pool(out: Path, count: int, dirty: int, seed: int) -> str:
    """Write a dirty pool, its labels and the held-out questions; return what was written.

    Args:
        out: the folder.
        count: the number of rows before copies and leaks are added.
        dirty: the number of dirty rows of each kind of dirt.
        seed: what all of it follows from.
    """
    pool = make_pool(count, seed)
    rows, labels = plant(pool, dirty, seed)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / POOL, map(asdict, rows))
    _write(out / LABELS, map(asdict, labels))
    _write(out / SEEN, _questions(pool.seen))
    _write(out / UNSEEN, _questions(pool.unseen))
    return (
        f"{out}: {len(rows)} rows, {len(labels)} of them dirty; held out: {len(pool.seen)} "
        f"questions of the same kinds, {len(pool.unseen)} of others"
    )


def read_pool(folder: Path) -> tuple[list[Row], list[Label]]:
    """Read the rows and the labels that `write_pool` wrote."""
    rows = [Row(**row) for row in read_lines(folder / POOL)]
    return rows, [Label(**label) for label in read_lines(folder / LABELS)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _questions(problems: Sequence[Problem]) -> Iterable[Mapping[str, Any]]:
    for number, problem in enumerate(problems):
        yield {
            "id": f"{problem.kind}-{number}",
            "question": problem.question,
            "answer": problem.answer,
            "kind": problem.kind,
            "steps": problem.steps,
        }


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
