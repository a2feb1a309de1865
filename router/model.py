"""The trained model: a weighted blend of three classifiers, in NumPy only.

Two are linear, one over the signals and one over hashed n-grams; the third is a
gradient-boosted ensemble of small decision trees over the signals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

CLIP = 4.0
"""Standardized signals are clipped to ±CLIP, so that no outlier decides alone."""


class ModelError(ValueError):
    """A file is not a model, or was made by another version."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The features of one prompt.

    Attributes:
        values: signals and rules' score, of shape (F,), float32.
        buckets: n-gram buckets that occur, of shape (n,), integer.
        counts: their weights, 1 + log of the frequency, of shape (n,), float32.
    """

    values: Floats
    buckets: Integers
    counts: Floats


@dataclass(frozen=True, slots=True)
class Model:
    """The trained arrays; L is 4 levels, F features, B buckets, T complete trees of depth D.

    Attributes:
        feature_names: (F,) identifiers of the features, in order.
        mean: (F,) float32, the features' means.
        scale: (F,) float32, their divisors.
        signal_weights: (F, L) float32.
        signal_bias: (L,) float32.
        idf: (B,) float16, inverse document frequencies.
        ngram_weights: (B, L) float16.
        ngram_bias: (L,) float32.
        tree_feature: (T * (2^D - 1),) int64, the feature that a node compares: all roots, then
            all nodes of the next depth, and so on; node n of its depth leads to 2n or 2n + 1.
        tree_threshold: (T * (2^D - 1),) float32; a greater value of the feature leads to 2n + 1.
        tree_value: (T, 2^D) float32, what a leaf adds to a level's logit; tree t belongs to
            level t mod L.
        tree_bias: (L,) float32.
        blend_weights: (3,) float32, weights of the signals', n-grams' and trees' logits.
        inverse_temperature: (1,) float32, calibrates the blended logits.
    """

    feature_names: NDArray[np.str_]
    mean: Floats
    scale: Floats
    signal_weights: Floats
    signal_bias: Floats
    idf: Floats
    ngram_weights: Floats
    ngram_bias: Floats
    tree_feature: Integers
    tree_threshold: Floats
    tree_value: Floats
    tree_bias: Floats
    blend_weights: Floats
    inverse_temperature: Floats

    @classmethod
    def load(cls, path: Path) -> "Model":
        """Read a model.

        Raises:
            ModelError: if the file cannot be read or lacks an array.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, KeyError, ValueError) as error:
            raise ModelError(f"{path} is not a router model: {error}") from error

    def save(self, path: Path) -> None:
        """Write the model; equal models give equal bytes."""
        arrays: Mapping[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def logits(self, inputs: ModelInput) -> Floats:
        """Return the logits of the three classifiers, of shape (3, L)."""
        return np.array(
            [self.signal_logits(inputs), self.ngram_logits(inputs), self.tree_logits(inputs)]
        )

    def blend(self, logits: Floats) -> Floats:
        """Return the weighted sum of the three, of shape (L,), before calibration."""
        return np.asarray(self.blend_weights @ logits)

    def probabilities(self, logits: Floats) -> Floats:
        """Return calibrated probabilities, of shape (L,)."""
        return np.exp(log_softmax(self.inverse_temperature[0] * self.blend(logits)))

    def signal_logits(self, inputs: ModelInput) -> Floats:
        """Return the logits of the linear model over signals, of shape (L,)."""
        scaled = self.standardize(inputs.values)
        return np.asarray(scaled @ self.signal_weights + self.signal_bias)

    def standardize(self, values: Floats) -> Floats:
        """Return signals and rules' score of shape (F,), standardized and clipped."""
        return np.clip((values - self.mean) / self.scale, -CLIP, CLIP)

    def ngram_logits(self, inputs: ModelInput) -> Floats:
        """Return the logits of the linear model over n-grams, of shape (L,)."""
        tf_idf = inputs.counts * self.idf[inputs.buckets]
        norm = float(np.sqrt(tf_idf @ tf_idf)) or 1.0
        weights = self.ngram_weights[inputs.buckets].astype(np.float32)
        return np.asarray(tf_idf @ weights / norm + self.ngram_bias)

    def tree_logits(self, inputs: ModelInput) -> Floats:
        """Return the logits of the trees, of shape (L,)."""
        start, width = 0, len(self.tree_value)
        nodes = np.arange(width)
        while start < len(self.tree_feature):
            feature, threshold = self.tree_feature[start:], self.tree_threshold[start:]
            nodes = 2 * nodes + (inputs.values.take(feature.take(nodes)) > threshold.take(nodes))
            start, width = start + width, 2 * width
        leaves = self.tree_value.take(nodes).reshape(-1, len(self.tree_bias))
        return np.asarray(leaves.sum(axis=0) + self.tree_bias)


def log_softmax(logits: Floats) -> Floats:
    """Return the logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
