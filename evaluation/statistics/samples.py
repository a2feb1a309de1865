"""What was measured: answers to the same questions under several settings."""

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
        tokens: thinking tokens.
        generated: all generated tokens, which are paid for.
        correct: how right it is, from 0 to 1.
        said: the answer in a form in which equal ones are equal; None is none.
        confidence: mean log probability of the answer's tokens, None if unknown.
    """

    question: str
    tokens: float
    generated: float
    correct: float
    said: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One setting over all questions; each has the same number of samples or more.

    Attributes:
        name: what the setting is called, like "512 tokens" or "2 continuations".
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
        """Thinking tokens of an answer, each question counting once."""
        return float(self.by_question(self.questions, "tokens").mean())

    @property
    def mean_generated(self) -> float:
        """Generated tokens of an answer, each question counting once."""
        return float(self.by_question(self.questions, "generated").mean())

    @property
    def grouped(self) -> dict[str, list[Sample]]:
        """The samples of each question, questions in order."""
        groups: dict[str, list[Sample]] = {question: [] for question in self.questions}
        for sample in self.samples:
            groups[sample.question].append(sample)
        return groups

    @property
    def questions(self) -> list[str]:
        """Ids, in order."""
        return sorted({sample.question for sample in self.samples})

    def by_question(self, questions: Sequence[str], of: str) -> Floats:
        """The mean of a field over the samples of each question, shape (questions,).

        Raises:
            ValueError: if a question has no sample.
        """
        place = {question: at for at, question in enumerate(questions)}
        sums, counts = np.zeros(len(place)), np.zeros(len(place))
        for sample in self.samples:
            if (at := place.get(sample.question)) is not None:
                sums[at] += getattr(sample, of)
                counts[at] += 1
        if not counts.all():
            missing = questions[int(np.argmin(counts))]
            raise ValueError(f"run '{self.name}' has no sample of question '{missing}'")
        means: Floats = sums / counts
        return means


def shared_questions(runs: Sequence[Run]) -> list[str]:
    """Ids that every run has answered, in order.

    Raises:
        ValueError: if there are none.
    """
    found = sorted(set.intersection(*(set(run.questions) for run in runs)))
    if not found:
        raise ValueError("the runs have no question in common")
    return found
