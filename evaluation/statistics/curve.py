"""The metrics of s1 for accuracy against thinking tokens (arXiv 2501.19393, section 3.2)."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations


def control(tokens: Iterable[int], minimum: int, maximum: float) -> float:
    """Return the share of answers whose thinking tokens are within [minimum, maximum].

    Raises:
        ValueError: if there are no answers.
    """
    inside = [minimum <= count <= maximum for count in tokens]
    if not inside:
        raise ValueError("control needs at least one answer")
    return sum(inside) / len(inside)


def scaling(points: Sequence[tuple[float, float]], min_doublings: float = 0.0) -> float:
    """Return the percentage points of accuracy per doubling of the thinking tokens.

    It is the mean of the slopes between all pairs of conditions. The paper does not state the
    unit; its table is reproduced with log2 of the tokens and accuracy in percent.

    Args:
        points: mean thinking tokens, above 0, and accuracy from 0 to 1, of each condition.
        min_doublings: the minimum distance of a pair, in doublings. The slope between conditions
            whose tokens differ only by chance is arbitrary; the paper has no such pair.

    Raises:
        ValueError: if no pair is far enough apart, or a condition has no thinking tokens.
    """
    if any(tokens <= 0 for tokens, _ in points):
        raise ValueError("scaling is undefined for conditions without thinking tokens")
    slopes = [
        100 * (higher - lower) / math.log2(more / fewer)
        for (fewer, lower), (more, higher) in combinations(sorted(points), 2)
        if more != fewer and math.log2(more / fewer) >= min_doublings
    ]
    if not slopes:
        raise ValueError("scaling needs two conditions that differ in tokens")
    return sum(slopes) / len(slopes)


def performance(accuracies: Sequence[float]) -> float:
    """Return the best accuracy of all conditions."""
    return max(accuracies)


def flattens_at(accuracies: Sequence[float], tolerance: float = 0.0) -> int:
    """Return the index of the first condition that no later one beats by more than a tolerance.

    Args:
        accuracies: from the smallest budget to the largest.
        tolerance: the largest gain that is ignored, such as the half-width of an interval.
    """
    return next(
        index
        for index, accuracy in enumerate(accuracies)
        if max(accuracies[index:]) - accuracy <= tolerance
    )
