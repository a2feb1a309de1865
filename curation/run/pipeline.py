"""Runs a recipe: reads, judges, chooses and writes rows, step by step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from proctor.curation.errors import CurationError
from proctor.curation.model import Model, model_name
from proctor.curation.options import Context, Options
from proctor.curation.output.writer import Lengths, write_rows
from proctor.curation.readers.files import data_files
from proctor.curation.readers.inputs import read_input
from proctor.curation.recipe import Recipe
from proctor.curation.rows import Row
from proctor.curation.run.choosing import classify, select, to_candidate
from proctor.curation.run.steps import Step, Summary
from proctor.curation.run.versions import versions
from proctor.curation.stages.base import Dropped, Stage
from proctor.curation.storage import (
    complete_file,
    digest_of,
    digest_of_file,
    read_rows,
    row_to_line,
    to_line,
)
from proctor.curation.tokens import Tokens, Words

Advance = Callable[[str, int | None], None]
"""Is called for each row that a step has done, with the step's name and the number of its rows;
the number is None while it is not known."""

NOT_CHOSEN = "not chosen"


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did.

    Attributes:
        summaries: the counts of each step, in their order.
        chosen: the number of rows that are written.
        domains: the number of chosen rows in each domain.
        traces: the lengths of the chosen traces.
        rows: the lengths of the chosen rows in the model's template; None without a model.
        files: the digests of the files that were read, by their paths in the recipe.
    """

    summaries: tuple[Summary, ...]
    chosen: int
    domains: dict[str, int]
    traces: Lengths
    rows: Lengths | None
    files: dict[str, str]


class Pipeline:
    """A run of a recipe into a folder."""

    def __init__(self, recipe: Recipe, out: Path, advance: Advance = lambda *_: None) -> None:
        """Prepare a run.

        Args:
            recipe: the recipe.
            out: the folder of the results; unfinished steps are kept in `steps` in it.
            advance: is called for each row that is done.

        Raises:
            CurationError: if the model cannot be loaded.
        """
        self._recipe = recipe
        self._out = out
        self._advance = advance
        self._folder = out / "steps"
        settings = recipe.settings
        self._model = None
        if settings.model is not None:
            name = model_name(settings.model, recipe.folder)
            self._model = Model.load(name, settings.thinking_start, settings.thinking_end)
        self._tokens: Tokens = self._model or Words()
        self._context = Context(recipe.folder, self._tokens, settings.seed)
        self._files: dict[str, str] = {}
        self._steps: list[Step] = []

    def run(self) -> Result:
        """Run all steps that are not complete, and write the chosen rows.

        Raises:
            CurationError: if a file cannot be read, a stage cannot be built, or the rows do not
                allow what the recipe asks for.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        reading = self._read()
        for name, options in self._recipe.stages:
            self._judge(name, options, reading.file("rows.jsonl"))
        chosen = self._choose(reading.file("rows.jsonl"))
        result = self._write(reading.file("rows.jsonl"), chosen)
        self._remove_others()
        return result

    def rows_before(self, position: int) -> Iterator[Row]:
        """Run the steps before a stage that are not complete, and return the rows that they keep.

        Args:
            position: the stage's position in the recipe.

        Raises:
            CurationError: as `run`.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = self._read().file("rows.jsonl")
        for name, options in self._recipe.stages[:position]:
            self._judge(name, options, rows)
        return self._kept(rows, self._steps)

    def _step(self, name: str, options: Any, files: Iterable[Path] = ()) -> Step:
        """Return the next step, whose key depends on those before it."""
        digests = [self._digest(path) for path in files]
        before = self._steps[-1].key if self._steps else digest_of([versions()])
        step = Step(
            self._folder, len(self._steps), name, digest_of([before, name, options, digests])
        )
        self._steps.append(step)
        return step

    def _digest(self, path: Path) -> str:
        """Return the digest of a file, or of all data files of a folder."""
        if str(path) not in self._files:
            full = self._recipe.folder / path
            files = data_files(full) if full.is_dir() else [full]
            try:
                digests = [digest_of_file(file) for file in files]
            except FileNotFoundError:
                return ""  # the part that reads it says what to do
            except OSError as error:
                raise CurationError(f"{full} cannot be read: {error.strerror}") from error
            self._files[str(path)] = digests[0] if len(digests) == 1 else digest_of(digests)
        return self._files[str(path)]

    def _read(self) -> Step:
        inputs = self._recipe.settings.inputs
        options = [data.model_dump(mode="json") for data in inputs]
        step = self._step("read", options, [data.path for data in inputs])
        if not step.is_complete:
            step.run(self._read_into(step.file("rows.jsonl")))
        return step

    def _read_into(self, rows: Path) -> Iterator[tuple[str, Dropped | None]]:
        """Write all rows that can be read; the file is complete once the last one is yielded."""
        seen: set[str] = set()
        inputs = self._recipe.settings.inputs
        with complete_file(rows) as file:
            for data in inputs:
                for position, row in enumerate(read_input(data, self._recipe.folder, seen), 1):
                    self._advance("read", None)
                    if isinstance(row, Row):
                        file.write(row_to_line(row))
                        yield row.id, None
                    else:
                        yield f"{data.path} row {position}", Dropped(row.reason, row.detail)

    def _judge(self, name: str, options: Any, rows: Path) -> None:
        tokens = self._model.digest if self._model else "words"
        key = [options.model_dump(mode="json"), tokens, self._recipe.settings.seed]
        step = self._step(name, key, options.files())
        if not step.is_complete:
            stage: Stage = options.build(self._context)
            survivors = self._survivors(rows, name)
            step.run((row.id, stage.judge(row)) for row in survivors)

    def _survivors(self, rows: Path, name: str) -> Iterator[Row]:
        """Yield the rows that all steps before the last one keep."""
        before = self._steps[:-1]
        total = before[-1].summary().kept
        for row in self._kept(rows, before):
            yield row
            self._advance(name, total)

    def _kept(self, rows: Path, steps: Sequence[Step]) -> Iterator[Row]:
        # The first step's ids are those of files, whose rows are not among them.
        gone = {each["id"] for step in steps[1:] for each in step.dropped()}
        for row in read_rows(rows):
            if row.id not in gone:
                yield row

    def _choose(self, rows: Path) -> dict[str, str]:
        """Return the domains of the chosen rows by id, in the order in which they are written."""
        recipe = self._recipe
        parts: list[Options] = [part[1] for part in (recipe.classifier, recipe.selector) if part]
        named = [
            part and [part[0], part[1].model_dump(mode="json")]
            for part in (recipe.classifier, recipe.selector)
        ]
        tokens = self._model.digest if self._model else "words"
        files = [path for part in parts for path in part.files()]
        step = self._step("select", [named, tokens, recipe.settings.seed], files)
        if not step.is_complete:
            survivors = self._survivors(rows, "select")
            candidates = [to_candidate(row, self._tokens) for row in survivors]
            candidates = classify(candidates, recipe.classifier, self._context)
            chosen = select(candidates, recipe.selector, self._context)
            domains = {candidate.id: candidate.domain for candidate in candidates}
            with complete_file(step.file("chosen.jsonl")) as file:
                for row_id in chosen:
                    file.write(to_line([row_id, domains[row_id]]))
            kept = {*chosen}
            step.run(
                (each.id, None if each.id in kept else Dropped(NOT_CHOSEN, each.domain))
                for each in candidates
            )
        with step.file("chosen.jsonl").open("rb") as lines:
            return dict(map(orjson.loads, lines))

    def _write(self, rows: Path, chosen: dict[str, str]) -> Result:
        """Write the chosen rows and the dropped ones, and return the result."""
        offsets = _offsets(rows, chosen)
        lengths: list[int] = []
        output = self._recipe.settings.output

        def in_order() -> Iterator[Row]:
            with rows.open("rb") as file:
                for row_id, domain in chosen.items():
                    file.seek(offsets[row_id])
                    row = Row(**orjson.loads(file.readline()))
                    lengths.append(self._tokens.count(row.trace))
                    yield replace(row, domain=domain or None)
                    self._advance("write", len(chosen))

        written = write_rows(self._out / "rows.jsonl", in_order(), output, self._model)
        with complete_file(self._out / "dropped.jsonl") as file:
            for step in self._steps:
                for dropped in step.dropped():
                    file.write(to_line({"step": step.name, **dropped}))
        domains: dict[str, int] = {}
        for domain in chosen.values():
            domains[domain] = domains.get(domain, 0) + 1
        return Result(
            summaries=tuple(step.summary() for step in self._steps),
            chosen=len(chosen),
            domains=dict(sorted(domains.items(), key=lambda item: (-item[1], item[0]))),
            traces=Lengths.of(lengths, self._tokens.unit),
            rows=written,
            files=dict(self._files),
        )

    def _remove_others(self) -> None:
        """Remove the files of other steps, such as those of an older version of the recipe."""
        own = {step.file("json").stem for step in self._steps}
        for path in self._folder.iterdir():
            if path.name.partition(".")[0] not in own:
                path.unlink()


def _offsets(rows: Path, ids: Iterable[str]) -> dict[str, int]:
    """Return where the lines of rows begin in a file."""
    wanted, offsets = {*ids}, {}
    with rows.open("rb") as file:
        position = 0
        for line in file:
            row_id = orjson.loads(line)["id"]
            if row_id in wanted:
                offsets[row_id] = position
            position += len(line)
    return offsets
