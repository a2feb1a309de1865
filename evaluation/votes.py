"""Several answers to a question: at least one right, or the majority."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations

MOST_VOTES = 20_000


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


def majority_at_k(answers: Sequence[Hashable | None], right: Hashable, k: int) -> float:
    """The chance that the commonest of `k` of the answers is the right one.

    Ties are broken by chance. An answer of None, which is no answer, has no vote.

    Args:
        answers: what was answered, in a form in which equal ones are equal.
        right: the right answer in that form.
        k: how many vote.

    Raises:
        ValueError: if there are fewer answers, or more ways to draw them than can be gone through.
    """
    if not 1 <= k <= len(answers):
        raise ValueError("maj@k needs 1 <= k <= the number of answers")
    if math.comb(len(answers), k) > MOST_VOTES:
        raise ValueError(f"maj@{k} of {len(answers)} answers has too many ways to vote")
    chances = [_wins(drawn, right) for drawn in combinations(answers, k)]
    return sum(chances) / len(chances)


def _wins(drawn: Sequence[Hashable | None], right: Hashable) -> float:
    votes = Counter(answer for answer in drawn if answer is not None)
    most = max(votes.values(), default=0)
    if not most or votes[right] != most:
        return 0.0
    return 1 / sum(count == most for count in votes.values())
