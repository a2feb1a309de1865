"""Answers to the same questions under several conditions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer.

    Attributes:
        question: the question's id.
        tokens: thinking tokens, and those of probes; NaN if the server does not count them.
        generated: all generated tokens, which are billed.
        correct: the score, from 0 to 1.
        normalized_answer: the answer in a form in which equal answers are equal; None without
            an answer.
        confidence: the mean log probability of the answer's tokens, None if unknown.
        index: the index among the answers to this question; answers of several conditions with
            the same index were sampled with the same seed.
    """

    question: str
    tokens: float
    generated: float
    correct: float
    normalized_answer: str | None = None
    confidence: float | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """All answers under one condition.

    Attributes:
        name: the name of the condition, such as "512 tokens" or "2 continuations".
        samples: the answers.
    """

    name: str
    samples: tuple[Sample, ...]

    @property
    def accuracy(self) -> float:
        """The share of right answers, each question counting once."""
        return float(self.by_question(self.questions, "correct").mean())

    @property
    def mean_tokens(self) -> float:
        """The mean thinking tokens of an answer, each question counting once.

        NaN unless the tokens of all answers are known.
        """
        return float(self.by_question(self.questions, "tokens").mean())

    @property
    def has_token_counts(self) -> bool:
        """Whether the thinking tokens of all answers are known."""
        return not any(math.isnan(sample.tokens) for sample in self.samples)

    @property
    def mean_generated(self) -> float:
        """The mean generated tokens of an answer, each question counting once."""
        return float(self.by_question(self.questions, "generated").mean())

    @property
    def grouped(self) -> dict[str, list[Sample]]:
        """The samples of each question, sorted by question."""
        groups: dict[str, list[Sample]] = {question: [] for question in self.questions}
        for sample in self.samples:
            groups[sample.question].append(sample)
        return groups

    @property
    def questions(self) -> list[str]:
        """The questions' ids, sorted."""
        return sorted({sample.question for sample in self.samples})

    def by_question(self, questions: Sequence[str], field: str) -> Floats:
        """Return the mean of a field over the samples of each question, shape (questions,).

        Raises:
            ValueError: if a question has no sample.
        """
        indices = {question: index for index, question in enumerate(questions)}
        sums, counts = np.zeros(len(indices)), np.zeros(len(indices))
        for sample in self.samples:
            if (index := indices.get(sample.question)) is not None:
                sums[index] += getattr(sample, field)
                counts[index] += 1
        if not counts.all():
            missing = questions[int(np.argmin(counts))]
            raise ValueError(f"run '{self.name}' has no sample of question '{missing}'")
        means: Floats = sums / counts
        return means


def have_shared_questions(runs: Sequence[Run]) -> bool:
    """Return whether there is a question that all runs have: an interrupted run may have none."""
    return bool(runs) and bool(set.intersection(*(set(run.questions) for run in runs)))


def shared_questions(runs: Sequence[Run]) -> list[str]:
    """Return the sorted ids of the questions that all runs have.

    Raises:
        ValueError: if there are none.
    """
    shared = sorted(set.intersection(*(set(run.questions) for run in runs)))
    if not shared:
        raise ValueError("the runs have no question in common")
    return shared
