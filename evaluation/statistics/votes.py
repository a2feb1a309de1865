"""Several answers to a question: pass@k, majority vote and best-of-k."""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Sequence
from itertools import combinations

MAX_DRAWS = 20_000
"""Maximum number of combinations to enumerate; beyond it, consecutive groups of answers vote."""


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the unbiased estimate that at least one of `k` answers is right (arXiv 2107.03374).

    Args:
        samples: the number of answers.
        correct: the number of right answers.
        k: the number of answers drawn, at most `samples`.

    Raises:
        ValueError: if the numbers contradict each other.
    """
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise ValueError("pass@k needs 1 <= k <= samples and 0 <= correct <= samples")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority_at_k(answers: Sequence[Hashable | None], right: Collection[Hashable], k: int) -> float:
    """Return the probability that the most common of `k` of the answers is right.

    Ties are broken randomly. None, a missing answer, has no vote.

    Args:
        answers: the normalized answers.
        right: those that are right.
        k: the number of answers that vote.

    Raises:
        ValueError: if there are fewer than `k` answers.
    """
    if not 1 <= k <= len(answers):
        raise ValueError("maj@k needs 1 <= k <= the number of answers")
    probabilities = [_win_probability(drawn, right) for drawn in _draws(answers, k)]
    return sum(probabilities) / len(probabilities)


def best_of_k(answers: Sequence[tuple[float, float]], k: int) -> float:
    """Return the expected score of the most confident of `k` of the answers, over all draws.

    Args:
        answers: the confidence and the score of each; ties are broken randomly.
        k: the number of answers drawn.

    Raises:
        ValueError: if there are fewer than `k` answers.
    """
    if not 1 <= k <= len(answers):
        raise ValueError("best-of-k needs 1 <= k <= the number of answers")
    tied: dict[float, list[float]] = {}
    for confidence, correct in answers:
        tied.setdefault(confidence, []).append(correct)
    expected, remaining = 0.0, len(answers)
    for _, scores in sorted(tied.items(), reverse=True):
        lower = remaining - len(scores)
        draws = math.comb(remaining, k) - math.comb(lower, k)
        expected += draws / math.comb(len(answers), k) * sum(scores) / len(scores)
        remaining = lower
    return expected


def _draws(answers: Sequence[Hashable | None], k: int) -> Iterator[Sequence[Hashable | None]]:
    if math.comb(len(answers), k) <= MAX_DRAWS:
        return combinations(answers, k)
    return (answers[start : start + k] for start in range(0, len(answers) - k + 1, k))


def _win_probability(drawn: Sequence[Hashable | None], right: Collection[Hashable]) -> float:
    votes = Counter(answer for answer in drawn if answer is not None)
    maximum = max(votes.values(), default=0)
    winners = [answer for answer, count in votes.items() if count == maximum]
    return sum(answer in right for answer in winners) / len(winners) if winners else 0.0
