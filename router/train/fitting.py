"""Fits the three classifiers of the model, and calibrates their blend."""

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

from proctor.router import rules
from proctor.router.ensemble import FEATURE_NAMES, SCORE_FEATURES, model_input
from proctor.router.features.ngrams import BUCKETS
from proctor.router.features.parsing import parse_prompt
from proctor.router.model import CLIP, Model, ModelInput, log_softmax
from proctor.router.prediction import LEVELS
from proctor.router.train.records import Record

SEED = 0
BLEND_WEIGHTS = np.array([0.35, 0.2, 0.45], np.float32)
"""Weights of the signals', n-grams' and trees' logits."""

SIGNAL_PENALTY = 100.0
NGRAM_PENALTY = 0.25
"""L2 penalties of the linear models."""
SCORE_EMPHASIS = 3.0
"""Divides the scale of the rules' score, which regularizes it less: hand-written rules generalize
to unseen sources."""

TREE_DEPTH = 5

SOURCE_POWER = 0.5
"""A prompt of a source of n prompts has weight n^-SOURCE_POWER, so that large sources do not
dominate."""

HAND_EMPHASIS = 3.0
"""Factor on the weight of prompts labelled by hand rather than by a rule for their source."""

FOLDS = 5

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Indices of the training rows and of the held-out rows."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The features and labels of n records.

    Attributes:
        values: (n, F) signals and rules' score.
        ngrams: (n, B) n-gram weights, a sparse CSR matrix.
        levels: (n,) indices into `LEVELS`.
        sources: (n,) names of sources.
        groups: (n,) names of groups.
        by_hand: (n,) whether the record was labelled by hand.
    """

    values: NDArray[np.float32]
    ngrams: Any
    levels: NDArray[np.intp]
    sources: NDArray[np.str_]
    groups: NDArray[np.str_]
    by_hand: NDArray[np.bool_]

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Inputs":
        """Extract the features of the records, in order."""
        inputs = [_model_input(record) for record in records]
        row_ends = np.cumsum([0, *(len(each.buckets) for each in inputs)])
        ngrams = csr_matrix(
            (
                np.concatenate([each.counts for each in inputs]),
                np.concatenate([each.buckets for each in inputs]),
                row_ends,
            ),
            shape=(len(inputs), BUCKETS),
        )
        return cls(
            np.stack([each.values for each in inputs]).astype(np.float32),
            ngrams,
            np.array([record.level for record in records]),
            np.array([record.source for record in records]),
            np.array([f"{record.source}\n{record.group}" for record in records]),
            np.array([record.by_hand for record in records]),
        )

    def select(self, rows: NDArray[np.intp]) -> "Inputs":
        """Return the records of these rows."""
        return Inputs(
            self.values[rows],
            self.ngrams[rows],
            self.levels[rows],
            self.sources[rows],
            self.groups[rows],
            self.by_hand[rows],
        )

    def model_input(self, row: int) -> ModelInput:
        """Return the model's input of one record."""
        ngrams = self.ngrams[row]
        return ModelInput(self.values[row], ngrams.indices, ngrams.data)


def _model_input(record: Record) -> ModelInput:
    prompt = parse_prompt(record.conversation)
    return model_input(prompt, rules.extract_with_context(prompt))


def fit(inputs: Inputs) -> Model:
    """Fit a model; calibrate its probabilities on held-out folds."""
    sources = len(set(inputs.sources))
    groups = inputs.sources if sources >= FOLDS else inputs.groups
    folds = list(GroupKFold(FOLDS).split(inputs.values, groups=groups))
    logits = held_out_logits(inputs, folds)
    return fit_once(inputs, fit_inverse_temperature(logits, inputs.levels))


def held_out_logits(inputs: Inputs, folds: Iterable[Fold]) -> NDArray[np.float64]:
    """Cross-validate: return every record's blended logits, (n, L), by a model not fitted on it."""
    blended = np.empty((len(inputs.levels), len(LEVELS)))
    for train_rows, held_out_rows in folds:
        model = fit_once(inputs.select(train_rows))
        for row in held_out_rows:
            blended[row] = model.blend(model.logits(inputs.model_input(row)))
    return blended


def fit_inverse_temperature(blended: NDArray[np.float64], levels: NDArray[np.intp]) -> float:
    """Return the factor on held-out logits that minimizes the cross-entropy of the levels."""

    def loss(factor: float) -> float:
        log_probabilities = log_softmax(factor * blended)
        return -float(np.take_along_axis(log_probabilities, levels[:, None], axis=1).mean())

    return float(minimize_scalar(loss, bounds=(0.2, 5.0), method="bounded").x)


def fit_once(inputs: Inputs, inverse_temperature: float = 1.0) -> Model:
    """Fit a model with a given inverse temperature."""
    weights = _weights(inputs)
    mean = inputs.values.mean(axis=0)
    # The last features are the rules' score; a smaller divisor means less regularization.
    scale = np.maximum(inputs.values.std(axis=0), 1e-3)
    scale[-len(SCORE_FEATURES) :] /= SCORE_EMPHASIS
    scaled = np.clip((inputs.values - mean) / scale, -CLIP, CLIP)
    on_signals = _linear(1.0 / SIGNAL_PENALTY).fit(scaled, inputs.levels, sample_weight=weights)

    idf = _idf(inputs.ngrams)
    tf_idf = _normalized(inputs.ngrams.multiply(idf).tocsr())
    on_ngrams = _linear(1.0 / NGRAM_PENALTY).fit(tf_idf, inputs.levels, sample_weight=weights)

    trees = GradientBoostingClassifier(
        n_estimators=160,
        learning_rate=0.07,
        max_depth=TREE_DEPTH,
        subsample=0.6,
        max_features=0.12,
        min_samples_leaf=25,
        random_state=SEED,
    ).fit(inputs.values, inputs.levels, sample_weight=weights)
    level_weights = np.bincount(inputs.levels, weights=weights, minlength=len(LEVELS))
    return Model(
        feature_names=np.array(FEATURE_NAMES),
        mean=mean.astype(np.float32),
        scale=scale.astype(np.float32),
        signal_weights=on_signals.coef_.T.astype(np.float32),
        signal_bias=on_signals.intercept_.astype(np.float32),
        idf=idf.astype(np.float16),
        ngram_weights=on_ngrams.coef_.T.astype(np.float16),
        ngram_bias=on_ngrams.intercept_.astype(np.float32),
        **tree_arrays(trees),
        tree_bias=np.log(level_weights / level_weights.sum()).astype(np.float32),
        blend_weights=BLEND_WEIGHTS,
        inverse_temperature=np.array([inverse_temperature], np.float32),
    )


def _linear(inverse_penalty: float) -> LogisticRegression:
    return LogisticRegression(C=inverse_penalty, max_iter=500)


def _weights(inputs: Inputs) -> NDArray[np.float64]:
    _, source, sizes = np.unique(inputs.sources, return_inverse=True, return_counts=True)
    weights = sizes[source].astype(float) ** -SOURCE_POWER
    weights[inputs.by_hand] *= HAND_EMPHASIS
    return np.asarray(weights / weights.mean())


def _idf(ngrams: Any) -> NDArray[np.float64]:
    records = ngrams.shape[0]
    document_frequency = np.bincount(ngrams.indices, minlength=ngrams.shape[1])
    return np.asarray(np.log((1.0 + records) / (1.0 + document_frequency)) + 1.0)


def _normalized(rows: Any) -> Any:
    norms = np.sqrt(rows.multiply(rows).sum(axis=1)).A1
    return csr_matrix(rows.multiply(1.0 / np.maximum(norms, 1e-9)[:, None]))


def tree_arrays(trees: GradientBoostingClassifier) -> dict[str, NDArray[Any]]:
    """Convert the trees to the arrays of `Model`, ordered by boosting round, then by level."""
    complete = [_complete(tree.tree_) for round_ in trees.estimators_ for tree in round_]
    features, thresholds, values = zip(*complete, strict=True)
    return {
        "tree_feature": _by_depth(features).astype(np.intp),
        "tree_threshold": _round_down(_by_depth(thresholds)),
        "tree_value": (trees.learning_rate * np.stack(values)).astype(np.float32),
    }


def _by_depth(trees: Iterable[Sequence[NDArray[Any]]]) -> NDArray[Any]:
    """Concatenate the trees' arrays per depth, the roots first."""
    return np.concatenate([np.concatenate(depth) for depth in zip(*trees, strict=True)])


def _complete(tree: Any) -> tuple[list[NDArray[Any]], list[NDArray[Any]], NDArray[Any]]:
    """Extend a tree to full depth; return features and thresholds per depth, and leaf values.

    Both children of a leaf above the full depth get its value.
    """
    features, thresholds = [], []
    nodes = np.zeros(1, np.intp)
    for _ in range(TREE_DEPTH):
        left = tree.children_left[nodes]
        is_inner = left >= 0
        features.append(np.where(is_inner, tree.feature[nodes], 0))
        thresholds.append(np.where(is_inner, tree.threshold[nodes], np.inf))
        right = tree.children_right[nodes]
        nodes = np.where(is_inner, (left, right), nodes).ravel(order="F")
    return features, thresholds, tree.value[nodes, 0, 0]


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Convert to float32 such that the same float32 values exceed each threshold."""
    nearest = thresholds.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > thresholds, below, nearest)
