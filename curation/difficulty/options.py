"""The table `[stages.difficulty]` of a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from proctor.curation.difficulty.measured import read_solved
from proctor.curation.difficulty.questions import Questions
from proctor.curation.difficulty.rule import Judge, Mode
from proctor.curation.difficulty.stage import Difficulty
from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.servers import ConditionOptions, ServerOptions
from proctor.curation.stages.base import Stage, StageOptions
from proctor.evaluation.conditions import Condition
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.scorers import ScorerError, load_scorer
from proctor.evaluation.store import StoreError

TASK = "curate"
"""The name of the task in files of answers: they hold questions by hash, of any data set."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Names of models in a recipe, as they become names of files."""


class ModelOptions(ServerOptions):
    """A model by whose answers questions are judged.

    Attributes:
        without: the condition without thinking.
        thinking: the condition with thinking.
        only_without: never ask with thinking: what this model solves is too easy, no more.
    """

    without: ConditionOptions = ConditionOptions(tier="none")
    thinking: ConditionOptions = ConditionOptions(tier="high")
    only_without: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.without == self.thinking:
            raise ValueError("without and thinking must be different conditions")
        for condition in self.conditions.values():
            self.check_condition(condition)
        return self

    @property
    def conditions(self) -> Mapping[Mode, Condition]:
        """The conditions under which the model is asked."""
        without = {Mode.WITHOUT: self.without.to_condition()}
        if self.only_without:
            return without
        return {**without, Mode.THINKING: self.thinking.to_condition()}


class DifficultyOptions(StageOptions):
    """Keep questions that the models fail without thinking, and solve with it.

    Attributes:
        models: the models that are asked, by names that also name their files of answers.
        folder: the folder of the files of answers.
        scorer: how answers are compared with the reference: a scorer of `proctor eval`.
        template: the prompt, with `{question}` and fields of the row in braces.
        samples: answers to each question under each condition.
        temperature: the temperature of every request.
        top_p: the `top_p` of every request.
        seed: the seed of the first answer; each further one adds one.
    """

    models: Annotated[dict[Annotated[str, Field(pattern=NAME)], ModelOptions], Field(min_length=1)]
    folder: str = "measured"
    scorer: str = "numeric"
    template: str = "{question}"
    samples: Annotated[int, Field(ge=1)] = 1
    temperature: Annotated[float, Field(ge=0)] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: int = 0

    @property
    def judges(self) -> list[Judge]:
        """The models, as the rule knows them."""
        return [Judge(name, model.only_without) for name, model in self.models.items()]

    def files(self) -> tuple[Path, ...]:
        """Return the files of answers."""
        return tuple(self.file(name) for name in self.models)

    def file(self, name: str) -> Path:
        """Return the file of a model's answers, relative to the recipe's folder."""
        return Path(self.folder) / f"{name}.jsonl"

    def run_config(self, name: str) -> RunConfig:
        """Return what all answers of a model have in common."""
        model = self.models[name]
        return RunConfig(
            model=model.model,
            task=TASK,
            template=self.template,
            scorer=self.scorer,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            budget_field=model.budget_field,
        )

    def questions(self) -> Questions:
        """Return what makes questions of rows.

        Raises:
            CurationError: if there is no such scorer.
        """
        try:
            return Questions(self.template, load_scorer(self.scorer))
        except ScorerError as error:
            raise CurationError(str(error)) from error

    def build(self, context: Context) -> Stage:
        """Create the stage from the files of answers.

        Raises:
            CurationError: if a file is missing, cannot be read, or is that of another measurement.
        """
        try:
            solved = {
                name: read_solved(
                    context.folder / self.file(name),
                    self.run_config(name),
                    model.conditions,
                    self.samples,
                )
                for name, model in self.models.items()
            }
        except StoreError as error:
            raise CurationError(str(error)) from error
        return Difficulty(self.judges, self.questions(), solved)
