"""What a recipe sets: models of its tables, from which the parts of a run are built."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from proctor.curation.selection import Classifier, Selector
from proctor.curation.stages.base import Stage
from proctor.curation.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Context:
    """What parts of a run are built with, besides their own options.

    Attributes:
        folder: the folder that relative paths of the recipe start from.
        tokens: splits texts into tokens: those of the recipe's model, or words.
        seed: the recipe's seed.
    """

    folder: Path
    tokens: Tokens
    seed: int


class Options(BaseModel):
    """The options of a part of a recipe: unknown fields are errors, values are never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def files(self) -> tuple[Path, ...]:
        """Return the files that the part reads, as they are written in the recipe.

        Their contents belong to the key of the part's stored result.
        """
        return ()


class StageOptions(Options):
    """The options of a stage."""

    def build(self, context: Context) -> Stage:
        """Create the stage.

        Raises:
            ValueError: if a file cannot be read, or a dependency is not installed.
        """
        raise NotImplementedError


class ClassifierOptions(Options):
    """The options of a classifier."""

    def build(self, context: Context) -> Classifier:
        """Create the classifier; raises ValueError as a stage's `build` does."""
        raise NotImplementedError


class SelectorOptions(Options):
    """The options of a selector."""

    def build(self, context: Context) -> Selector:
        """Create the selector; raises ValueError as a stage's `build` does."""
        raise NotImplementedError
