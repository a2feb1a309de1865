"""Several answers to a question: at least one right, the majority, the surest."""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Sequence
from itertools import combinations

MOST_VOTES = 20_000
"""Ways to draw that are gone through; where there are more, answers vote in groups as they came."""


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that of `k` answers one is right (arXiv 2107.03374), without bias.

    Args:
        samples: answers that were made.
        correct: those of them that are right.
        k: how many are drawn, no more than were made.

    Raises:
        ValueError: if that makes no sense.
    """
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise ValueError("pass@k needs 1 <= k <= samples and 0 <= correct <= samples")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority_at_k(answers: Sequence[Hashable | None], right: Collection[Hashable], k: int) -> float:
    """The chance that the commonest of `k` of the answers is a right one.

    Ties are broken by chance. An answer of None, which is no answer, has no vote.

    Args:
        answers: what was answered, in a form in which equal ones are equal.
        right: those of them that are right.
        k: how many vote.

    Raises:
        ValueError: if there are fewer answers.
    """
    if not 1 <= k <= len(answers):
        raise ValueError("maj@k needs 1 <= k <= the number of answers")
    chances = [_wins(drawn, right) for drawn in _draws(answers, k)]
    return sum(chances) / len(chances)


def surest_of_k(answers: Sequence[tuple[float, float]], k: int) -> float:
    """How right the surest of `k` of the answers is, on average over all ways to draw them.

    Args:
        answers: how sure each is, and how right. Of equally sure ones any is taken.
        k: how many are drawn.

    Raises:
        ValueError: if there are fewer answers.
    """
    if not 1 <= k <= len(answers):
        raise ValueError("best-of-k needs 1 <= k <= the number of answers")
    tied: dict[float, list[float]] = {}
    for sure, correct in answers:
        tied.setdefault(sure, []).append(correct)
    expected, below = 0.0, len(answers)
    for _, scores in sorted(tied.items(), reverse=True):
        left = below - len(scores)
        chance = (math.comb(below, k) - math.comb(left, k)) / math.comb(len(answers), k)
        expected += chance * sum(scores) / len(scores)
        below = left
    return expected


def _draws(answers: Sequence[Hashable | None], k: int) -> Iterator[Sequence[Hashable | None]]:
    if math.comb(len(answers), k) <= MOST_VOTES:
        return combinations(answers, k)
    return (answers[at : at + k] for at in range(0, len(answers) - k + 1, k))


def _wins(drawn: Sequence[Hashable | None], right: Collection[Hashable]) -> float:
    votes = Counter(answer for answer in drawn if answer is not None)
    most = max(votes.values(), default=0)
    first = [answer for answer, count in votes.items() if count == most]
    return sum(answer in right for answer in first) / len(first) if first else 0.0
