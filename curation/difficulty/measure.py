"""Asks the servers what is not known yet: without thinking first, then with it where needed."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from proctor.curation.difficulty.measured import SolvedQuestions, solved_by, solved_questions
from proctor.curation.difficulty.options import DifficultyOptions, ModelOptions
from proctor.curation.difficulty.questions import Unaskable
from proctor.curation.difficulty.rule import Judge, Mode, Solved, is_needed, may_be_needed
from proctor.curation.rows import Row
from proctor.curation.servers import Refusals
from proctor.evaluation.client import ServerClient
from proctor.evaluation.forecast import before
from proctor.evaluation.progress import ask_all
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.runner import WorkItem, pending
from proctor.evaluation.scorers import Scorer
from proctor.evaluation.store import Store
from proctor.evaluation.tasks import Question


async def measure(
    options: DifficultyOptions,
    rows: Iterable[Row],
    folder: Path,
    console: Console,
    dry_run: bool = False,
) -> None:
    """Ask all models all questions that they must be asked; answers so far are kept and used.

    First the number and the price of the answers are printed. With thinking both are upper bounds,
    as questions that a model solves without thinking are not asked again.

    Args:
        options: the recipe's table.
        rows: the rows to measure; of these, only the questions are held in memory.
        folder: the folder that the recipe's relative paths start from.
        console: shows the price and the progress.
        dry_run: only print the price.

    Raises:
        RequestRefused: if a server does not answer, or refuses most requests.
        TokenCountMismatch: if a server's count of thinking tokens is wrong.
        ValueError: if a file of answers is that of another measurement, or a key is missing.
    """
    questions = _askable(options, rows, console)
    models = [_Model.open(options, judge, folder) for judge in options.judges]
    for model in models:
        for mode, condition in model.options.conditions.items():
            work = _pending(options, questions, models, model, mode, may_be_needed)
            bound = "at most " if mode == Mode.THINKING else ""
            title = f"{model.judge.name}, {condition.name}: {bound}"
            await model.tell_price(work, title, console)
    if dry_run:
        return
    for mode in Mode:
        for model in models:
            if mode in model.options.conditions:
                work = _pending(options, questions, models, model, mode, is_needed)
                console.print(f"{model.judge.name}, {model.options.conditions[mode].name}")
                await model.ask(work, console)


@dataclass(slots=True)
class _Model:
    """A model that is asked, and its answers so far."""

    options: ModelOptions
    judge: Judge
    config: RunConfig
    scorer: Scorer
    samples: int
    path: Path
    store: Store

    @classmethod
    def open(cls, options: DifficultyOptions, judge: Judge, folder: Path) -> "_Model":
        path = folder / options.file(judge.name)
        config = options.run_config(judge.name)
        store = Store(path, config, keep_texts=False)
        model = options.models[judge.name]
        return cls(model, judge, config, options.questions().scorer, options.samples, path, store)

    def solved(self) -> SolvedQuestions:
        return solved_questions(self.store.rows, self.options.conditions, self.samples)

    async def tell_price(self, work: Sequence[WorkItem], title: str, console: Console) -> None:
        if not work:
            return
        async with self.options.connect() as http:
            price = await before(ServerClient(http, self.config, self.scorer), work)
        console.print(f"{title}{price}")

    async def ask(self, work: Sequence[WorkItem], console: Console) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not work:
            with self.store:  # the file says that there is nothing to measure
                return
        refusals = Refusals(self.store)
        async with self.options.connect() as http:
            client = ServerClient(http, self.config, self.scorer)
            concurrency = self.options.concurrency
            await ask_all(client, work, self.store, concurrency, console, refusals.add)
        if refusals.count:
            message = f"{refusals.count:,} requests were refused; the last: {refusals.last}"
            console.print(message, markup=False)  # it has the server's text


def _askable(
    options: DifficultyOptions, rows: Iterable[Row], console: Console
) -> Sequence[Question]:
    """Return the different questions of the rows; count on the console what cannot be asked."""
    maker = options.questions()
    questions: dict[str, Question] = {}
    unaskable: Counter[str] = Counter()
    for row in rows:
        try:
            question = maker.of(row)
            if question.id not in questions:
                maker.check(question)
                questions[question.id] = question
        except Unaskable as error:
            unaskable[error.reason] += 1
    console.print(f"{len(questions):,} different questions")
    for reason, count in unaskable.items():
        console.print(f"{count:,} rows cannot be measured: {reason}")
    return [*questions.values()]


def _pending(
    options: DifficultyOptions,
    questions: Sequence[Question],
    models: Sequence[_Model],
    model: _Model,
    mode: Mode,
    filter_by: Callable[[Judge, Mode, Sequence[Judge], Solved], bool],
) -> list[WorkItem]:
    """Return the missing answers of a model to the questions that pass a filter."""
    solved = {each.judge.name: each.solved() for each in models}
    asked = [
        question
        for question in questions
        if filter_by(model.judge, mode, options.judges, solved_by(solved, question.id))
    ]
    condition = model.options.conditions[mode]
    return pending([condition], asked, options.samples, model.store.rows)
