"""Test-time strategies other than one longer chain: majority vote, best-of-n, rejection.

Each derives a run from a run: a question has one sample, which holds the strategy's expected score
over all draws of the question's answers, and the tokens of all answers drawn. Every statistic of a
plain run therefore applies, and strategies can be compared at equal tokens.
"""

from collections.abc import Callable, Sequence

from proctor.evaluation.statistics.samples import Run, Sample
from proctor.evaluation.statistics.votes import best_of_k, majority_at_k, pass_at_k


def majority(run: Run, k: int) -> Run:
    """Return the run of the most common of `k` answers (self-consistency, arXiv 2203.11171)."""

    def expected(samples: Sequence[Sample]) -> float:
        right = {sample.normalized_answer for sample in samples if sample.correct == 1}
        return majority_at_k([sample.normalized_answer for sample in samples], right, k)

    return _of_k(run, k, f"majority@{k}", expected)


def best_of_n(run: Run, k: int) -> Run:
    """Return the run of best-of-`k` by the mean log probability of the answer's tokens."""

    def expected(samples: Sequence[Sample]) -> float:
        rated = [
            (float("-inf") if sample.confidence is None else sample.confidence, sample.correct)
            for sample in samples
        ]
        return best_of_k(rated, k)

    return _of_k(run, k, f"best-of-{k}", expected)


def any_right(run: Run, k: int) -> Run:
    """Return the run of pass@`k`, at least one right: the upper bound of any selection."""

    def expected(samples: Sequence[Sample]) -> float:
        return pass_at_k(len(samples), sum(sample.correct == 1 for sample in samples), k)

    return _of_k(run, k, f"pass@{k}", expected)


def rejection(run: Run, max_tokens: int) -> Run:
    """Return the run of sampling until the thinking has at most `max_tokens` (s1, section 5.2).

    The tokens of rejected answers count. A question without an answer that fits is answered
    wrong, with the tokens of all its answers.
    """
    return Run(
        f"rejection above {max_tokens}",
        tuple(_first_that_fits(samples, max_tokens) for samples in run.grouped.values()),
    )


def _of_k(run: Run, k: int, name: str, expected: Callable[[Sequence[Sample]], float]) -> Run:
    """Return the run of a strategy; questions with fewer than `k` answers are omitted."""
    derived = []
    for question, samples in run.grouped.items():
        if len(samples) < k:
            continue
        tokens = k * sum(sample.tokens for sample in samples) / len(samples)
        generated = k * sum(sample.generated for sample in samples) / len(samples)
        derived.append(Sample(question, tokens, generated, expected(samples)))
    return Run(name, tuple(derived))


def _first_that_fits(samples: Sequence[Sample], max_tokens: int) -> Sample:
    """Return the expectation over all orders of the answers."""
    fits = [sample for sample in samples if sample.tokens <= max_tokens]
    others = [sample for sample in samples if sample.tokens > max_tokens]
    # In a random order of f answers that fit and others that do not, each of the others precedes
    # all that fit with probability 1 / (f + 1); with f = 0 all are rejected.
    weight = 1 / (len(fits) + 1)

    def expected_tokens(field: str) -> float:
        rejected: float = weight * sum(getattr(sample, field) for sample in others)
        accepted: float = sum(getattr(sample, field) for sample in fits) / max(len(fits), 1)
        return rejected + accepted

    correct = sum(sample.correct for sample in fits) / max(len(fits), 1)
    return Sample(
        samples[0].question, expected_tokens("tokens"), expected_tokens("generated"), correct
    )
