"""The perfect router: for each question the cheapest condition that is right.

Sampled answers are partly luck. A router that chooses by the answers that it is judged by takes the
lucky ones: of ten conditions that each guess one question in two, one is almost always right. So
`perfect_router` is an upper bound that no router reaches. `held_out_router` chooses by a question's
other answers and is judged by the one left out, which favours no condition by luck. It knows a
question's chances only as well as a few answers tell, so that with more answers it gets better: a
router that knew them would be between the two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proctor.evaluation.statistics.samples import Floats, Run, Sample, shared_questions

PRICES = 64
"""Prices per token at which a router's line is computed."""

Router = Callable[[Sequence[Run], float], Run]


def perfect_router(runs: Sequence[Run], price: float = 0.0) -> Run:
    """Return the run of a router that sees each answer, and its score, before it chooses.

    It chooses the highest score minus the price of the tokens, and of equal ones the cheapest.

    Args:
        runs: the conditions to choose from.
        price: the score that a thinking token costs. 0 is the cheapest condition that is right,
            or else the cheapest.

    Raises:
        ValueError: if the runs have no question in common.
    """
    answers = _Answers.of(runs)
    chosen = _choose(answers.correct, answers.tokens, price)
    return answers.to_run("perfect router", chosen)


def held_out_router(runs: Sequence[Run], price: float = 0.0) -> Run:
    """Return the run of a router that sees all answers to a question but the one it is judged by.

    Its expectation of a condition is the mean of the question's other answers and of one more, the
    mean over all other questions, without which a single wrong answer would speak for the cheapest
    condition. It is judged by each answer in turn.

    Args:
        runs: the conditions to choose from.
        price: the score that a thinking token costs.

    Raises:
        ValueError: if a question does not have two answers under each condition, or there is only
            one question.
    """
    if not can_hold_out(runs):
        raise ValueError("holding out an answer needs two of each question and condition")
    answers = _Answers.of(runs)
    correct, tokens = (answers.expected(field) for field in (answers.correct, answers.tokens))
    return answers.to_run("perfect router, held out", _choose(correct, tokens, price))


def can_hold_out(runs: Sequence[Run]) -> bool:
    """Return whether each of several shared questions has two answers under each condition."""
    answers = _Answers.of(runs)
    counts = np.bincount(answers.question, minlength=len(answers.names))
    return len(counts) > 1 and bool((counts > 1).all())


def line(router: Router, runs: Sequence[Run]) -> list[tuple[float, float]]:
    """Return mean tokens and accuracy of a router at prices from high to 0, sorted by tokens."""
    most = max(sample.tokens for run in runs for sample in run.samples)
    prices = [0.0, *np.geomspace(0.1 / max(most, 1), 2, PRICES)]
    routed = [router(runs, float(price)) for price in prices]
    return sorted({(run.mean_tokens, run.accuracy) for run in routed})


@dataclass(frozen=True, slots=True)
class _Answers:
    """The answers that all conditions have: n of the same question and index.

    Attributes:
        names: the ids of the questions.
        question: the position of each answer's question in `names`, shape (n,).
        index: the index of each answer among those to its question, shape (n,).
        tokens: thinking tokens, shape (n, conditions).
        generated: all generated tokens, in the same shape.
        correct: scores, in the same shape.
    """

    names: list[str]
    question: NDArray[np.int64]
    index: NDArray[np.int64]
    tokens: Floats
    generated: Floats
    correct: Floats

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "_Answers":
        by_key = [{(each.question, each.index): each for each in run.samples} for run in runs]
        keys = sorted(set.intersection(*(set(samples) for samples in by_key)))
        names = shared_questions(runs)
        position = {name: at for at, name in enumerate(names)}

        def table(field: str) -> Floats:
            return np.array([[getattr(each[key], field) for each in by_key] for key in keys], float)

        return cls(
            names,
            np.array([position[name] for name, _ in keys], np.int64),
            np.array([index for _, index in keys], np.int64),
            table("tokens"),
            table("generated"),
            table("correct"),
        )

    def expected(self, values: Floats) -> Floats:
        """Return what the other answers to a question tell about each one, in the same shape."""
        sums = np.zeros((len(self.names), values.shape[1]))
        np.add.at(sums, self.question, values)
        counts = np.bincount(self.question)
        elsewhere = (sums.sum(axis=0) - sums) / (len(self.question) - counts)[:, None]
        others = sums[self.question] - values
        means: Floats = (others + elsewhere[self.question]) / counts[self.question][:, None]
        return means

    def to_run(self, name: str, chosen: NDArray[np.int64]) -> Run:
        """Return the run of the chosen conditions' answers."""
        rows = np.arange(len(chosen))
        fields = (self.tokens, self.generated, self.correct)
        columns = [field[rows, chosen].tolist() for field in fields]
        samples = zip(self.question.tolist(), *columns, self.index.tolist(), strict=True)
        return Run(
            name,
            tuple(
                Sample(self.names[question], tokens, generated, correct, index=index)
                for question, tokens, generated, correct, index in samples
            ),
        )


def _choose(correct: Floats, tokens: Floats, price: float) -> NDArray[np.int64]:
    """Return the position of the chosen condition for each answer, shape (n,)."""
    worth = correct - price * tokens
    best = worth >= worth.max(axis=1, keepdims=True) - 1e-12
    chosen: NDArray[np.int64] = np.where(best, tokens, np.inf).argmin(axis=1)
    return chosen
