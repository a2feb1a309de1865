"""Ways to spend thinking beside one longer chain: votes, the surest of several, rejection.

Each makes a run out of a run, in which a question's one sample is what the way gives on average
over all draws of that question's answers, and its tokens are those of all answers drawn. So
every statistic of a plain budget is one of these too, and equal tokens can be compared.
"""

from collections.abc import Callable, Sequence

from proctor.evaluation.statistics.samples import Run, Sample
from proctor.evaluation.statistics.votes import majority_at_k, pass_at_k, surest_of_k


def majority(run: Run, k: int) -> Run:
    """The commonest answer of `k` (self-consistency, arXiv 2203.11171)."""

    def expected(samples: Sequence[Sample]) -> float:
        right = {sample.said for sample in samples if sample.correct == 1}
        return majority_at_k([sample.said for sample in samples], right, k)

    return _of_k(run, k, f"majority@{k}", expected)


def best_of_n(run: Run, k: int) -> Run:
    """Best-of-k, where the best is the answer that the model finds likeliest, token for token."""

    def expected(samples: Sequence[Sample]) -> float:
        rated = [
            (float("-inf") if sample.confidence is None else sample.confidence, sample.correct)
            for sample in samples
        ]
        return surest_of_k(rated, k)

    return _of_k(run, k, f"best-of-{k}", expected)


def any_right(run: Run, k: int) -> Run:
    """Best-of-k by one who knows: at least one of `k` is right, which no way of choosing beats."""

    def expected(samples: Sequence[Sample]) -> float:
        return pass_at_k(len(samples), sum(sample.correct == 1 for sample in samples), k)

    return _of_k(run, k, f"pass@{k}", expected)


def rejection(run: Run, most: int) -> Run:
    """Answer again until a thinking has at most so many tokens (s1, section 5.2).

    Every answer on the way is paid for. A question of which no answer fits is
    answered wrong, at the price of all of them.
    """
    return Run(
        f"rejection above {most}",
        tuple(_first_that_fits(samples, most) for samples in run.grouped.values()),
    )


def _of_k(run: Run, k: int, name: str, expected: Callable[[Sequence[Sample]], float]) -> Run:
    """Questions with fewer than `k` answers are left out."""
    made = []
    for question, samples in run.grouped.items():
        if len(samples) < k:
            continue
        tokens = k * sum(sample.tokens for sample in samples) / len(samples)
        generated = k * sum(sample.generated for sample in samples) / len(samples)
        made.append(Sample(question, tokens, generated, expected(samples)))
    return Run(name, tuple(made))


def _first_that_fits(samples: Sequence[Sample], most: int) -> Sample:
    """What to expect where the answers come in any order."""
    fits = [sample for sample in samples if sample.tokens <= most]
    others = [sample for sample in samples if sample.tokens > most]
    # In a shuffled row of f that fit and o others, each other is before all that fit with a
    # chance of 1 / (f + 1); with f = 0 all are gone through.
    weight = 1 / (len(fits) + 1)

    def paid(of: str) -> float:
        rejected: float = weight * sum(getattr(sample, of) for sample in others)
        taken: float = sum(getattr(sample, of) for sample in fits) / max(len(fits), 1)
        return rejected + taken

    correct = sum(sample.correct for sample in fits) / max(len(fits), 1)
    return Sample(samples[0].question, paid("tokens"), paid("generated"), correct)
