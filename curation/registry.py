"""The parts that a recipe can name; a new one is a line here."""

from collections.abc import Mapping

from proctor.curation.difficulty.options import DifficultyOptions
from proctor.curation.diversity.baselines import LongestOptions, RandomOptions, UniformOptions
from proctor.curation.diversity.clusters import ClustersOptions
from proctor.curation.diversity.endpoint import EndpointOptions
from proctor.curation.diversity.keywords import KeywordsOptions
from proctor.curation.diversity.s1 import S1NotebookOptions, S1PaperOptions
from proctor.curation.plugins import Plugins
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
    "difficulty": DifficultyOptions,
    "reasoning": ReasoningOptions,
}
"""The stages, by `[[stages]] stage`."""

CLASSIFIERS: Mapping[str, type[ClassifierOptions]] = Plugins(
    "proctor.domains",
    ClassifierOptions,
    {"keywords": KeywordsOptions, "clusters": ClustersOptions, "endpoint": EndpointOptions},
)
"""The classifiers, by `[domains] by`; others are entry points of `proctor.domains`."""

SELECTORS: Mapping[str, type[SelectorOptions]] = {
    "s1-paper": S1PaperOptions,
    "s1-notebook": S1NotebookOptions,
    "uniform": UniformOptions,
    "longest": LongestOptions,
    "random": RandomOptions,
}
"""The selectors, by `[select] by`."""
