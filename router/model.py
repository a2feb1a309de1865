"""The trained model: three small models, and how their answers are put together.

Two are linear, over the signals and over hashed n-grams; the third is a sum of
small decision trees over the signals. Everything here is NumPy.
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
"""Scaled signals end here, so that none decides alone."""


class ModelError(ValueError):
    """A file that holds no model of this version."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a prompt is to the model.

    Attributes:
        values: signals and score, of shape (features,).
        buckets: n-gram buckets that occur, of shape (n,).
        counts: their weights, of shape (n,).
    """

    values: Floats
    buckets: Integers
    counts: Floats


@dataclass(frozen=True, slots=True)
class Model:
    """Arrays as trained; L is 4 levels, F features, B buckets, T complete trees of depth D.

    Attributes:
        names: (F,) the features, in order.
        centre: (F,) their means.
        scale: (F,) what to divide by.
        signal_weights: (F, L).
        signal_bias: (L,).
        rarity: (B,) inverse document frequencies.
        gram_weights: (B, L).
        gram_bias: (L,).
        tree_feature: (T * (2^D - 1),) which feature a node asks for: all roots, then all nodes
            below them, and so on; node n of its level leads to 2n or 2n + 1 of the next.
        tree_border: (T * (2^D - 1),) the feature's value beyond which it leads to 2n + 1.
        tree_value: (T, 2^D) what a leaf adds to its level's logit; tree t is level t mod L's.
        tree_bias: (L,).
        shares: (3,) how much each of the three models counts.
        sharpness: (1,) what the blended logits are multiplied by, to be calibrated.
    """

    names: NDArray[np.str_]
    centre: Floats
    scale: Floats
    signal_weights: Floats
    signal_bias: Floats
    rarity: Floats
    gram_weights: Floats
    gram_bias: Floats
    tree_feature: Integers
    tree_border: Floats
    tree_value: Floats
    tree_bias: Floats
    shares: Floats
    sharpness: Floats

    @classmethod
    def load(cls, path: Path) -> "Model":
        """Read a model.

        Raises:
            ModelError: if the file holds none.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{field.name: stored[field.name] for field in fields(cls)})
        except (OSError, KeyError, ValueError) as error:
            raise ModelError(f"{path} holds no model: {error}") from error

    def save(self, path: Path) -> None:
        """Write the model; the same model gives the same bytes."""
        arrays: Mapping[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def answers(self, parts: Parts) -> Floats:
        """The three models' logits, of shape (3, L)."""
        return np.array([self.of_signals(parts), self.of_grams(parts), self.of_trees(parts)])

    def blended(self, answers: Floats) -> Floats:
        """The three put together: logits before calibration, of shape (L,)."""
        return np.asarray(self.shares @ answers)

    def probabilities(self, answers: Floats) -> Floats:
        """Calibrated probabilities, of shape (L,)."""
        return np.exp(log_softmax(self.sharpness[0] * self.blended(answers)))

    def of_signals(self, parts: Parts) -> Floats:
        """Logits of the linear model over signals, of shape (L,)."""
        scaled = np.clip((parts.values - self.centre) / self.scale, -CLIP, CLIP)
        return np.asarray(scaled @ self.signal_weights + self.signal_bias)

    def of_grams(self, parts: Parts) -> Floats:
        """Logits of the linear model over n-grams, of shape (L,)."""
        weighted = parts.counts * self.rarity[parts.buckets]
        length = float(np.sqrt(weighted @ weighted)) or 1.0
        found = self.gram_weights[parts.buckets].astype(np.float32)
        return np.asarray(weighted @ found / length + self.gram_bias)

    def of_trees(self, parts: Parts) -> Floats:
        """Logits of the trees, of shape (L,)."""
        level, size = 0, len(self.tree_value)
        at = np.arange(size)
        while level < len(self.tree_feature):
            feature, border = self.tree_feature[level:], self.tree_border[level:]
            at = 2 * at + (parts.values.take(feature.take(at)) > border.take(at))
            level, size = level + size, 2 * size
        reached = self.tree_value.take(at).reshape(-1, len(self.tree_bias))
        return np.asarray(reached.sum(axis=0) + self.tree_bias)


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of the probabilities, over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
