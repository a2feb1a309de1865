"""The base class of the tables of a recipe, and what the parts of a run are built with."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

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
