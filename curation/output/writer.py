"""Writes the chosen rows as lines of JSON, unless a block size would cut them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proctor.curation.errors import CurationError
from proctor.curation.model import Model
from proctor.curation.output.options import Output
from proctor.curation.rows import Row
from proctor.curation.storage import complete_file, to_line


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of texts.

    Attributes:
        unit: `tokens` or `words`.
        shortest: the least.
        median: the upper median.
        longest: the greatest.
        total: the sum.
    """

    unit: str
    shortest: int
    median: int
    longest: int
    total: int

    @classmethod
    def of(cls, lengths: Iterable[int], unit: str) -> "Lengths":
        """Summarize lengths; of none, all are 0."""
        ordered = sorted(lengths) or [0]
        return cls(unit, ordered[0], ordered[len(ordered) // 2], ordered[-1], sum(ordered))

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def to_record(row: Row, output: Output, model: Model | None) -> dict[str, Any]:
    """Return a row as it is written."""
    common = {"id": row.id, "domain": row.domain, "source": row.source}
    if output.form == "template" and model is not None:
        prompt, completion = model.render(row.question, row.trace, row.answer)
        return {**common, "prompt": prompt, "completion": completion}
    answer = {"role": "assistant", "content": row.answer, "reasoning_content": row.trace}
    return {**common, "messages": [{"role": "user", "content": row.question}, answer]}


def write_rows(
    path: Path, rows: Iterable[Row], output: Output, model: Model | None
) -> Lengths | None:
    """Write rows, and return their lengths in the model's template; None without a model.

    Raises:
        CurationError: if `block_size` would cut a row; the file is not written then.
    """
    lengths: dict[str, int] = {}
    with complete_file(path) as file:
        for row in rows:
            file.write(to_line(to_record(row, output, model)))
            if model is not None and output.needs_model:
                lengths[row.id] = model.count("".join(model.render(*_texts(row))))
        _check_block_size(lengths, output.block_size)
    return Lengths.of(lengths.values(), "tokens") if lengths else None


def _texts(row: Row) -> tuple[str, str, str]:
    return row.question, row.trace, row.answer


def _check_block_size(lengths: dict[str, int], block_size: int | None) -> None:
    """Raise CurationError if rows are longer than a block.

    s1 found that a model trained on cut traces thinks longer and is right less often.
    """
    if block_size is None:
        return
    cut = [row_id for row_id, length in lengths.items() if length > block_size]
    if cut:
        longest = max(cut, key=lambda row_id: lengths[row_id])
        raise CurationError(
            f"output.block_size {block_size} would cut {len(cut)} of {len(lengths)} rows; the "
            f"longest, {longest}, has {lengths[longest]} tokens: set block_size to that, or drop "
            "long traces by the stage 'reasoning' and its max_tokens"
        )
