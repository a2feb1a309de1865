"""Domains as clusters of questions with similar words."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Annotated

import numpy as np
from pydantic import Field

from proctor.curation.diversity.keywords import OTHER
from proctor.curation.diversity.words import Floats, Ints, Vectors, vectorize
from proctor.curation.options import Context
from proctor.curation.selection import Classifier, ClassifierOptions

MAX_ROUNDS = 30
NAME_WORDS = 3
"""Words of a cluster that name it."""


class ClustersOptions(ClassifierOptions):
    """Place questions in clusters by their words, with k-means over TF-IDF.

    Attributes:
        clusters: the number of clusters.
    """

    clusters: Annotated[int, Field(ge=2)] = 50

    def build(self, context: Context) -> Classifier:
        return Clusters(self.clusters, context.seed)


class Clusters:
    """Groups questions by their words, and names each group by the words that it has most of."""

    def __init__(self, clusters: int, seed: int) -> None:
        """Create the classifier.

        Args:
            clusters: the number of clusters; there are fewer if there are fewer questions.
            seed: of the questions that the clusters begin with.
        """
        self._clusters = clusters
        self._seed = seed

    def classify(self, questions: Iterable[str]) -> list[str]:
        """Return the cluster of each question; `other` if all of its words are rare.

        The result depends on the set of questions, not on their order.
        """
        asked = [*questions]
        different = sorted(set(asked))
        vectors = vectorize(different)
        centers = _seeds(vectors, self._clusters, Random(self._seed))
        groups, centers = _converge(vectors, centers)
        names = [*_names(vectors.words, centers), OTHER]
        domains = {text: names[group] for text, group in zip(different, groups, strict=True)}
        return [domains[question] for question in asked]


def _seeds(vectors: Vectors, clusters: int, rng: Random) -> Floats:
    """Choose questions as first centers (k-means++), shape (at most clusters, words).

    Each is drawn with its squared distance to the nearest center so far as its weight.
    """
    weights = np.bincount(vectors.rows, minlength=vectors.count).astype(bool).astype(float)
    centers: list[Floats] = []
    while len(centers) < clusters and weights.any():
        sums = np.cumsum(weights)
        chosen = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
        is_chosen = vectors.rows == chosen
        center = np.zeros(len(vectors.words))
        center[vectors.columns[is_chosen]] = vectors.values[is_chosen]
        centers.append(center)
        # The squared distance of two vectors of length 1 is 2 - 2 cos.
        distance = np.maximum(1 - vectors.similarity(center), 0)
        distance[distance < 1e-9] = 0  # the same words, but for rounding
        weights = np.minimum(weights, distance)
    return np.array(centers).reshape(len(centers), len(vectors.words))


def _converge(vectors: Vectors, centers: Floats) -> tuple[Ints, Floats]:
    """Move centers to the means of their questions until none changes its cluster.

    All sums are added one by one: a BLAS, or NumPy's own sum, adds in an order that depends on the
    machine, and questions on the border of two clusters would move.

    Returns:
        The cluster of each question, shape (count,), with the number of clusters for those without
        words, and the centers, shape (clusters, words).
    """
    wordless = np.bincount(vectors.rows, minlength=vectors.count) == 0
    groups = np.full(vectors.count, -1)
    for _ in range(MAX_ROUNDS):
        nearest = _nearest(vectors, centers)
        nearest[wordless] = len(centers)
        if np.array_equal(nearest, groups):
            break
        groups = nearest
        sums = vectors.sums(groups, len(centers) + 1)[: len(centers)]
        norms = np.sqrt(np.cumsum(sums**2, axis=1)[:, -1:])
        # A cluster that has lost all of its questions keeps its center.
        centers = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centers)
    return groups, centers


def _nearest(vectors: Vectors, centers: Floats) -> Ints:
    """Return the most similar center of each question; of equal ones the first."""
    best = np.full(vectors.count, -1.0)
    nearest = np.zeros(vectors.count, np.int64)
    for number, center in enumerate(centers):
        similarity = vectors.similarity(center)
        closer = similarity > best
        nearest[closer] = number
        best[closer] = similarity[closer]
    return nearest


def _names(words: Sequence[str], centers: Floats) -> list[str]:
    """Name each cluster by its weightiest words; a name that is taken gets a number."""
    names: list[str] = []
    for center in centers:
        top = np.argsort(-center, kind="stable")[:NAME_WORDS]
        name = ", ".join(words[column] for column in top if center[column] > 0)
        taken = sum(1 for each in names if each.partition(" (")[0] == name)
        names.append(f"{name} ({taken + 1})" if taken else name)
    return names
