"""How good the classifiers are on prompts that they have not seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from proctor.router.decision import DEFAULT_COSTS, Costs, decide
from proctor.router.ensemble import NAMES, SCORES
from proctor.router.model import log_softmax
from proctor.router.prediction import LEVELS
from proctor.router.rules import spread
from proctor.router.train.fitting import FOLDS, SEED, Fold, Inputs, held_out, inverse_temperature
from proctor.router.train.records import Record, read_records

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Figures:
    """How one classifier did in one validation.

    Attributes:
        title: which, and how.
        confusion: (4, 4) counts by true level and by the level chosen.
        exact: share of right levels.
        within_one: share of levels that are at most one off.
        exact_or_border: as `exact`, a record at a border being right one off too.
        by_hand: share of right levels among the records labelled by hand.
        high_to_none: share of the high ones that were sent to none.
    """

    title: str
    confusion: Indices
    exact: float
    within_one: float
    exact_or_border: float
    by_hand: float
    high_to_none: float

    @classmethod
    def of(cls, title: str, records: Sequence[Record], chosen: Indices) -> "Figures":
        """Compare the levels chosen with those of the records."""
        levels = np.array([record.level for record in records])
        by_hand = np.array([record.by_hand for record in records])
        border = np.array([record.border for record in records])
        off = np.abs(chosen - levels)
        confusion = np.zeros((len(LEVELS), len(LEVELS)), np.intp)
        np.add.at(confusion, (levels, chosen), 1)
        return cls(
            title,
            confusion,
            exact=_share(off == 0),
            within_one=_share(off <= 1),
            exact_or_border=_share((off == 0) | (border & (off == 1))),
            by_hand=_share(off[by_hand] == 0),
            high_to_none=_share(chosen[levels == len(LEVELS) - 1] == 0),
        )

    def __str__(self) -> str:
        """The figures and the confusion table, in Markdown."""
        head = (
            f"**{self.title}**: exact {self.exact:.4f}, within one {self.within_one:.4f}, "
            f"exact or border {self.exact_or_border:.4f}, by hand {self.by_hand:.4f}, "
            f"high to none {self.high_to_none:.4f}"
        )
        rows = [
            f"| {level} | " + " | ".join(map(str, row)) + " |"
            for level, row in zip(LEVELS, self.confusion.tolist(), strict=True)
        ]
        return "\n".join(
            [
                head,
                "",
                "| is \\ sent to | " + " | ".join(LEVELS) + " |",
                "|---|--:|--:|--:|--:|",
                *rows,
            ]
        )


@dataclass(frozen=True, slots=True)
class Report:
    """All figures: every classifier, sources held out and sources shared."""

    figures: tuple[Figures, ...]

    def __str__(self) -> str:
        """Markdown."""
        return "\n\n".join(map(str, self.figures))


def cross_validate(path: Path, costs: Costs = DEFAULT_COSTS) -> Report:
    """Judge prompts of sources held out one by one, then prompts of sources that were seen.

    Raises:
        TrainingDataError: if the file is not one of labelled prompts.
    """
    records = read_records(path)
    inputs = Inputs.of(records)
    judged = {"rules, nothing to train": _ruled(inputs, costs)}
    for how, folds in [
        ("sources held out one by one", list(_by_source(inputs))),
        ("sources shared, 5 folds", list(_within_sources(inputs))),
    ]:
        judged[f"ensemble, {how}"] = _trained(inputs, folds, costs)
        judged[f"baseline, {how}"] = _baseline(records, inputs, folds)
    return Report(tuple(Figures.of(title, records, found) for title, found in judged.items()))


def _by_source(inputs: Inputs) -> Iterable[Fold]:
    for source in np.unique(inputs.sources):
        yield np.flatnonzero(inputs.sources != source), np.flatnonzero(inputs.sources == source)


def _within_sources(inputs: Inputs) -> Iterable[Fold]:
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    yield from folds.split(inputs.values, inputs.levels, inputs.groups)


def _trained(inputs: Inputs, folds: Iterable[Fold], costs: Costs) -> Indices:
    """The model's levels; its sharpness for a fold comes from the records of the other folds."""
    folds = list(folds)
    blended = held_out(inputs, folds)
    chosen = np.empty(len(blended), np.intp)
    for seen, unseen in folds:
        factor = inverse_temperature(blended[seen], inputs.levels[seen])
        chances = np.exp(log_softmax(factor * blended[unseen]))
        chosen[unseen] = _levels(chances.tolist(), costs)
    return chosen


def _ruled(inputs: Inputs, costs: Costs) -> Indices:
    scores = inputs.values[:, NAMES.index(SCORES[0])]
    return _levels([spread(float(score)) for score in scores], costs)


def _baseline(records: Sequence[Record], inputs: Inputs, folds: Iterable[Fold]) -> Indices:
    """What anybody would try first: TF-IDF of words and logistic regression, likeliest level."""
    prompts = np.array([record.conversation.prompt for record in records], object)
    chosen = np.empty(len(records), np.intp)
    for seen, unseen in folds:
        words = TfidfVectorizer(sublinear_tf=True, min_df=2)
        known = words.fit_transform(prompts[seen])
        model = LogisticRegression(max_iter=500).fit(known, inputs.levels[seen])
        chosen[unseen] = model.predict(words.transform(prompts[unseen]))
    return chosen


def _levels(chances: Iterable[Sequence[float]], costs: Costs) -> Indices:
    return np.array([LEVELS.index(decide(each, costs)) for each in chances])


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if right.size else 0.0
