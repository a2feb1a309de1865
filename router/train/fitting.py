"""Fits the three small models, and calibrates what they say together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from proctor.router import ngrams, rules
from proctor.router.ensemble import NAMES, SCORES, take_apart
from proctor.router.model import CLIP, Model, Parts, log_softmax
from proctor.router.parsing import parse_prompt
from proctor.router.prediction import LEVELS
from proctor.router.train.records import Record

SEED = 0
SHARES = np.array([0.35, 0.2, 0.45], np.float32)
"""How much signals, n-grams and trees count."""

SIGNAL_PENALTY = 100.0
GRAM_PENALTY = 0.25
SCORE_EMPHASIS = 3.0
"""The rules' score is penalised less: what a person wrote down holds for sources not seen."""

TREE_DEPTH = 5

SOURCE_POWER = 0.5
"""A source of n prompts weighs n to this power less a prompt: large ones do not dominate."""

HAND_EMPHASIS = 3.0
"""What a person said of a prompt weighs more than what a rule said of its whole source."""

FOLDS = 5

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows to train on, and rows to judge."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Records as the models see them; n records.

    Attributes:
        values: (n, features) signals and score.
        grams: (n, buckets) n-gram counts, sparse.
        levels: (n,) indices of levels.
        sources: (n,) names of sources.
        groups: (n,) names of groups.
        by_hand: (n,) whether a person labelled them.
    """

    values: NDArray[np.float32]
    grams: Any
    levels: NDArray[np.intp]
    sources: NDArray[np.str_]
    groups: NDArray[np.str_]
    by_hand: NDArray[np.bool_]

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Inputs":
        """The records, in order."""
        parts = [_parts(record) for record in records]
        ends = np.cumsum([0, *(len(part.buckets) for part in parts)])
        grams = csr_matrix(
            (
                np.concatenate([part.counts for part in parts]),
                np.concatenate([part.buckets for part in parts]),
                ends,
            ),
            shape=(len(parts), ngrams.BUCKETS),
        )
        return cls(
            np.stack([part.values for part in parts]).astype(np.float32),
            grams,
            np.array([record.level for record in records]),
            np.array([record.source for record in records]),
            np.array([f"{record.source}\n{record.group}" for record in records]),
            np.array([record.by_hand for record in records]),
        )

    def rows(self, chosen: NDArray[np.intp]) -> "Inputs":
        """Some of the records."""
        return Inputs(
            self.values[chosen],
            self.grams[chosen],
            self.levels[chosen],
            self.sources[chosen],
            self.groups[chosen],
            self.by_hand[chosen],
        )

    def part(self, row: int) -> Parts:
        """One record."""
        grams = self.grams[row]
        return Parts(self.values[row], grams.indices, grams.data)


def _parts(record: Record) -> Parts:
    reading = parse_prompt(record.conversation)
    return take_apart(reading, rules.see(reading))


def fit(inputs: Inputs) -> Model:
    """A model of the records, its probabilities calibrated on folds that it had not seen."""
    sources = len(set(inputs.sources))
    together = inputs.sources if sources >= FOLDS else inputs.groups
    folds = list(GroupKFold(FOLDS).split(inputs.values, groups=together))
    return fit_once(inputs, inverse_temperature(held_out(inputs, folds), inputs.levels))


def held_out(inputs: Inputs, folds: Iterable[Fold]) -> NDArray[np.float64]:
    """What models that had not seen a record say of it, before calibration, of shape (n, L)."""
    blended = np.empty((len(inputs.levels), len(LEVELS)))
    for seen, unseen in folds:
        model = fit_once(inputs.rows(seen))
        for row in unseen:
            blended[row] = model.blended(model.answers(inputs.part(row)))
    return blended


def inverse_temperature(blended: NDArray[np.float64], levels: NDArray[np.intp]) -> float:
    """The factor on the held-out logits under which the levels are likeliest."""

    def loss(factor: float) -> float:
        logs = log_softmax(factor * blended)
        return -float(np.take_along_axis(logs, levels[:, None], axis=1).mean())

    return float(minimize_scalar(loss, bounds=(0.2, 5.0), method="bounded").x)


def fit_once(inputs: Inputs, factor: float = 1.0) -> Model:
    """A model of the records; `factor` is its sharpness."""
    weights = _weights(inputs)
    centre = inputs.values.mean(axis=0)
    # The last features are the score's; a smaller divisor is a smaller penalty.
    scale = np.maximum(inputs.values.std(axis=0), 1e-3)
    scale[-len(SCORES) :] /= SCORE_EMPHASIS
    scaled = np.clip((inputs.values - centre) / scale, -CLIP, CLIP)
    of_signals = _linear(1.0 / SIGNAL_PENALTY).fit(scaled, inputs.levels, sample_weight=weights)

    rarity = _idf(inputs.grams)
    grams = _normalised(inputs.grams.multiply(rarity).tocsr())
    of_grams = _linear(1.0 / GRAM_PENALTY).fit(grams, inputs.levels, sample_weight=weights)

    trees = GradientBoostingClassifier(
        n_estimators=160,
        learning_rate=0.07,
        max_depth=TREE_DEPTH,
        subsample=0.6,
        max_features=0.12,
        min_samples_leaf=25,
        random_state=SEED,
    ).fit(inputs.values, inputs.levels, sample_weight=weights)
    shares_of_levels = np.bincount(inputs.levels, weights=weights, minlength=len(LEVELS))
    return Model(
        names=np.array(NAMES),
        centre=centre.astype(np.float32),
        scale=scale.astype(np.float32),
        signal_weights=of_signals.coef_.T.astype(np.float32),
        signal_bias=of_signals.intercept_.astype(np.float32),
        rarity=rarity.astype(np.float16),
        gram_weights=of_grams.coef_.T.astype(np.float16),
        gram_bias=of_grams.intercept_.astype(np.float32),
        **tree_arrays(trees),
        tree_bias=np.log(shares_of_levels / shares_of_levels.sum()).astype(np.float32),
        shares=SHARES,
        sharpness=np.array([factor], np.float32),
    )


def _linear(freedom: float) -> LogisticRegression:
    return LogisticRegression(C=freedom, max_iter=500)


def _weights(inputs: Inputs) -> NDArray[np.float64]:
    _, which, sizes = np.unique(inputs.sources, return_inverse=True, return_counts=True)
    weights = sizes[which].astype(float) ** -SOURCE_POWER
    weights[inputs.by_hand] *= HAND_EMPHASIS
    return np.asarray(weights / weights.mean())


def _idf(grams: Any) -> NDArray[np.float64]:
    records = grams.shape[0]
    holding = np.bincount(grams.indices, minlength=grams.shape[1])
    return np.asarray(np.log((1.0 + records) / (1.0 + holding)) + 1.0)


def _normalised(grams: Any) -> Any:
    lengths = np.sqrt(grams.multiply(grams).sum(axis=1)).A1
    return csr_matrix(grams.multiply(1.0 / np.maximum(lengths, 1e-9)[:, None]))


def tree_arrays(trees: GradientBoostingClassifier) -> dict[str, NDArray[Any]]:
    """The trees as complete ones, round by round and answer by answer."""
    grown = [_complete(tree.tree_) for round_ in trees.estimators_ for tree in round_]
    features, borders, values = zip(*grown, strict=True)
    return {
        "tree_feature": _by_level(features).astype(np.intp),
        "tree_border": _rounded_down(_by_level(borders)),
        "tree_value": (trees.learning_rate * np.stack(values)).astype(np.float32),
    }


def _by_level(grown: Iterable[Sequence[NDArray[Any]]]) -> NDArray[Any]:
    """What each tree holds level by level, as one array in which all trees' levels lie together."""
    return np.concatenate([np.concatenate(level) for level in zip(*grown, strict=True)])


def _complete(tree: Any) -> tuple[list[NDArray[Any]], list[NDArray[Any]], NDArray[Any]]:
    """A tree of full depth: its nodes' features and borders by level, and its leaves' values.

    Under a leaf that came early both ways lead to its value.
    """
    features, borders = [], []
    nodes = np.zeros(1, np.intp)
    for _ in range(TREE_DEPTH):
        left = tree.children_left[nodes]
        inner = left >= 0
        features.append(np.where(inner, tree.feature[nodes], 0))
        borders.append(np.where(inner, tree.threshold[nodes], np.inf))
        right = tree.children_right[nodes]
        nodes = np.where(inner, (left, right), nodes).ravel(order="F")
    return features, borders, tree.value[nodes, 0, 0]


def _rounded_down(border: NDArray[np.float64]) -> NDArray[np.float32]:
    """Of single precision, with the same numbers of single precision beyond it."""
    nearest = border.astype(np.float32)
    return np.where(nearest > border, np.nextafter(nearest, np.float32(-np.inf)), nearest)
