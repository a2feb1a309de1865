"""Cross-validates the classifiers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from proctor.router.decision import DEFAULT_COSTS, Costs, decide
from proctor.router.ensemble import FEATURE_NAMES, SCORE_FEATURES
from proctor.router.model import log_softmax
from proctor.router.prediction import LEVELS
from proctor.router.rules import level_probabilities
from proctor.router.train.fitting import (
    FOLDS,
    SEED,
    Fold,
    Inputs,
    fit_inverse_temperature,
    held_out_logits,
)
from proctor.router.train.records import Record, read_records

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of one classifier in one validation.

    Attributes:
        title: the classifier and the kind of validation.
        confusion: (4, 4) counts by true level and predicted level.
        exact: the fraction of correct levels.
        within_one: the fraction of levels that are off by at most one.
        exact_or_border: as `exact`, but records marked as border may be off by one.
        by_hand: the fraction of correct levels among records labelled by hand.
        high_to_none: the fraction of high records that were predicted none.
    """

    title: str
    confusion: Indices
    exact: float
    within_one: float
    exact_or_border: float
    by_hand: float
    high_to_none: float

    @classmethod
    def of(cls, title: str, records: Sequence[Record], predicted: Indices) -> "Figures":
        """Compare predicted levels with those of the records."""
        levels = np.array([record.level for record in records])
        by_hand = np.array([record.by_hand for record in records])
        border = np.array([record.border for record in records])
        error = np.abs(predicted - levels)
        confusion = np.zeros((len(LEVELS), len(LEVELS)), np.intp)
        np.add.at(confusion, (levels, predicted), 1)
        return cls(
            title,
            confusion,
            exact=_fraction(error == 0),
            within_one=_fraction(error <= 1),
            exact_or_border=_fraction((error == 0) | (border & (error == 1))),
            by_hand=_fraction(error[by_hand] == 0),
            high_to_none=_fraction(predicted[levels == len(LEVELS) - 1] == 0),
        )

    def __str__(self) -> str:
        """Format the results and the confusion matrix as Markdown."""
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
                "| true \\ predicted | " + " | ".join(LEVELS) + " |",
                "|---|--:|--:|--:|--:|",
                *rows,
            ]
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all classifiers, with sources held out and with sources shared."""

    figures: tuple[Figures, ...]

    def __str__(self) -> str:
        """Format the results as Markdown."""
        return "\n\n".join(map(str, self.figures))


def cross_validate(path: Path, costs: Costs = DEFAULT_COSTS) -> Report:
    """Cross-validate by held-out source, then by 5 folds in which all sources occur.

    Raises:
        TrainingDataError: if the file of labelled prompts is invalid.
    """
    records = read_records(path)
    inputs = Inputs.of(records)
    predicted = {"rules, nothing to train": _predict_by_rules(inputs, costs)}
    for scheme, folds in [
        ("sources held out one by one", list(_by_source(inputs))),
        ("sources shared, 5 folds", list(_within_sources(inputs))),
    ]:
        predicted[f"ensemble, {scheme}"] = _predict_by_ensemble(inputs, folds, costs)
        predicted[f"baseline, {scheme}"] = _predict_by_baseline(records, inputs, folds)
    return Report(tuple(Figures.of(title, records, each) for title, each in predicted.items()))


def _by_source(inputs: Inputs) -> Iterable[Fold]:
    for source in np.unique(inputs.sources):
        yield np.flatnonzero(inputs.sources != source), np.flatnonzero(inputs.sources == source)


def _within_sources(inputs: Inputs) -> Iterable[Fold]:
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    yield from folds.split(inputs.values, inputs.levels, inputs.groups)


def _predict_by_ensemble(inputs: Inputs, folds: Iterable[Fold], costs: Costs) -> Indices:
    """Predict every fold, with an inverse temperature fitted on the other folds."""
    folds = list(folds)
    blended = held_out_logits(inputs, folds)
    predicted = np.empty(len(blended), np.intp)
    for train_rows, held_out_rows in folds:
        factor = fit_inverse_temperature(blended[train_rows], inputs.levels[train_rows])
        probabilities = np.exp(log_softmax(factor * blended[held_out_rows]))
        predicted[held_out_rows] = _levels(probabilities.tolist(), costs)
    return predicted


def _predict_by_rules(inputs: Inputs, costs: Costs) -> Indices:
    scores = inputs.values[:, FEATURE_NAMES.index(SCORE_FEATURES[0])]
    return _levels([level_probabilities(float(score)) for score in scores], costs)


def _predict_by_baseline(
    records: Sequence[Record], inputs: Inputs, folds: Iterable[Fold]
) -> Indices:
    """Predict the likeliest level by logistic regression on TF-IDF of words."""
    prompts = np.array([record.conversation.prompt for record in records], object)
    predicted = np.empty(len(records), np.intp)
    for train_rows, held_out_rows in folds:
        vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
        tf_idf = vectorizer.fit_transform(prompts[train_rows])
        model = LogisticRegression(max_iter=500).fit(tf_idf, inputs.levels[train_rows])
        predicted[held_out_rows] = model.predict(vectorizer.transform(prompts[held_out_rows]))
    return predicted


def _levels(probabilities: Iterable[Sequence[float]], costs: Costs) -> Indices:
    return np.array([LEVELS.index(decide(each, costs)) for each in probabilities])


def _fraction(correct: NDArray[np.bool_]) -> float:
    return float(correct.mean()) if correct.size else 0.0
