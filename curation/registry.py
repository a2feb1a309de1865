"""The parts that a recipe can name; a new one is a line here."""

from collections.abc import Mapping

from proctor.curation.selection import ClassifierOptions, SelectorOptions
from proctor.curation.stages.base import StageOptions
from proctor.curation.stages.decontamination import DecontaminationOptions
from proctor.curation.stages.deduplication import DeduplicationOptions
from proctor.curation.stages.quality import QualityOptions
from proctor.curation.stages.reasoning import ReasoningOptions

STAGES: Mapping[str, type[StageOptions]] = {
    "quality": QualityOptions,
    "deduplication": DeduplicationOptions,
    "decontamination": DecontaminationOptions,
    "reasoning": ReasoningOptions,
}
"""The stages, by `[[stages]] stage`."""

CLASSIFIERS: Mapping[str, type[ClassifierOptions]] = {}
"""The classifiers, by `[domains] by`."""

SELECTORS: Mapping[str, type[SelectorOptions]] = {}
"""The selectors, by `[select] by`."""
