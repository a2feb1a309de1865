"""A recipe: which rows are read, what they pass, which are chosen, and how they are written."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import Field, ValidationError, model_validator

from proctor.curation.errors import CurationError
from proctor.curation.options import Options
from proctor.curation.output.options import Output
from proctor.curation.readers.inputs import Input, Mapped
from proctor.curation.registry import CLASSIFIERS, SELECTORS, STAGES
from proctor.curation.selection import ClassifierOptions, SelectorOptions
from proctor.curation.stages.base import StageOptions

NESTED_FIELDS = (*Input.model_fields, *Mapped.model_fields, *Output.model_fields)
"""The names that a misspelt field below the top level is compared with."""

T = TypeVar("T", bound=Options)


class Settings(Options):
    """What is read, for which model, and how it is written.

    Attributes:
        inputs: the data sets, read in this order.
        seed: the seed of everything that is drawn.
        model: the folder or Hugging Face name of the model whose tokens are counted and whose
            chat template is written; without one, lengths are in words.
        thinking_start: the text of the marker that starts the thinking; the default is found in
            the model's chat template.
        thinking_end: the text of the marker that ends it.
        output: how the chosen rows are written.
    """

    inputs: tuple[Input, ...] = Field(min_length=1)
    seed: int = 0
    model: str | None = None
    thinking_start: str | None = Field(default=None, min_length=1)
    thinking_end: str | None = Field(default=None, min_length=1)
    output: Output = Output()

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if (self.thinking_start is None) != (self.thinking_end is None):
            raise ValueError("thinking_start and thinking_end must be set together")
        if self.model is None and self.output.needs_model:
            raise ValueError(
                "output: form = 'template' and block_size require `model`, whose template and "
                "tokens they use"
            )
        return self


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe.

    Attributes:
        settings: the fixed fields.
        stages: the name and options of each stage, in their order.
        classifier: the name and options of the classifier; None keeps the rows' own domains.
        selector: the name and options of the selector; None keeps all rows.
        folder: the folder that relative paths start from.
    """

    settings: Settings
    stages: tuple[tuple[str, StageOptions], ...]
    classifier: tuple[str, ClassifierOptions] | None
    selector: tuple[str, SelectorOptions] | None
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Return the recipe with all defaults, for the manifest."""
        named = {"domains": self.classifier, "select": self.selector}
        return {
            **self.settings.model_dump(mode="json"),
            "stages": [_dump("stage", name, options) for name, options in self.stages],
            **{key: _dump("by", *part) for key, part in named.items() if part is not None},
        }


def load_recipe(path: Path) -> Recipe:
    """Load a recipe from a TOML file; relative paths in it start from its folder.

    Raises:
        CurationError: if it cannot be read, or a field is invalid; the message names the field.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CurationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CurationError(f"{path} is not valid TOML: {error}") from error
    try:
        return parse_recipe(content, path.parent)
    except CurationError as error:
        raise CurationError(f"{path}: {error}") from error


def default_recipe() -> str:
    """Return the text of the recipe that comes with the package."""
    return files("proctor.curation").joinpath("recipes/default.toml").read_text(encoding="utf-8")


def parse_recipe(content: Mapping[str, Any], folder: Path) -> Recipe:
    """Parse the content of a recipe's TOML file.

    Raises:
        CurationError: if a field is invalid; the message names it.
    """
    fixed = dict(content)
    tables = fixed.pop("stages", [])
    domains, select = fixed.pop("domains", None), fixed.pop("select", None)
    if not isinstance(tables, list):
        raise CurationError("stages: must be a list of tables, each as [[stages]] with `stage`")
    known = (*Settings.model_fields, "stages", "domains", "select")
    settings = _validate(Settings, fixed, "", known)
    stages = tuple(
        _named(STAGES, table, "stage", f"stages[{index}]") for index, table in enumerate(tables)
    )
    return Recipe(
        settings=settings,
        stages=stages,
        classifier=None if domains is None else _named(CLASSIFIERS, domains, "by", "domains"),
        selector=None if select is None else _named(SELECTORS, select, "by", "select"),
        folder=folder,
    )


def _named(kinds: Mapping[str, type[T]], table: Any, key: str, where: str) -> tuple[str, T]:
    """Return the name in a table, and the options that the rest of it sets."""
    if not isinstance(table, Mapping):
        raise CurationError(f"{where}: must be a table")
    options = dict(table)
    name = options.pop(key, None)
    if not isinstance(name, str) or name not in kinds:
        hint = _nearest(str(name), kinds)
        known = ", ".join(kinds) or "none is installed"
        raise CurationError(f"{where}.{key}: {name!r} is unknown{hint}; known: {known}")
    return name, _validate(kinds[name], options, f"{where} ({name}): ", kinds[name].model_fields)


def _validate(
    kind: type[T], values: Mapping[str, Any], where: str, known: Sequence[str] | Any
) -> T:
    try:
        # JSON, as strict models take its strings for paths and its arrays for tuples.
        return kind.model_validate_json(orjson.dumps(values, default=str))
    except ValidationError as error:
        raise CurationError(
            "; ".join(f"{where}{_explain(each, known)}" for each in _deepest(error.errors()))
        ) from None


def _deepest(errors: Sequence[Any]) -> list[Any]:
    """Return the errors without those that only say that something inside is invalid."""
    places = [tuple(each["loc"]) for each in errors]
    return [
        each
        for each, place in zip(errors, places, strict=True)
        if not place or not any(inner[: len(place)] == place != inner for inner in places)
    ]


def _explain(error: Any, known: Sequence[str]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        own = known if len(error["loc"]) == 1 else NESTED_FIELDS
        return f"unknown field '{place}'{_nearest(str(error['loc'][-1]), own)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _nearest(name: str, known: Any) -> str:
    found = get_close_matches(name, list(known), n=1)
    return f", did you mean '{found[0]}'?" if found else ""


def _dump(key: str, name: str, options: Options) -> dict[str, Any]:
    return {key: name, **options.model_dump(mode="json")}
