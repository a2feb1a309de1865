"""The parts that a recipe can name; a new one is a line here."""

from collections.abc import Mapping

from proctor.curation.selection import ClassifierOptions, SelectorOptions
from proctor.curation.stages.base import StageOptions

STAGES: Mapping[str, type[StageOptions]] = {}
"""The stages, by `[[stages]] stage`."""

CLASSIFIERS: Mapping[str, type[ClassifierOptions]] = {}
"""The classifiers, by `[domains] by`."""

SELECTORS: Mapping[str, type[SelectorOptions]] = {}
"""The selectors, by `[select] by`."""
