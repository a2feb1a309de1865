"""Accuracy against thinking tokens, as s1 measures it (arXiv 2501.19393, section 3.2)."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations


def control(tokens: Iterable[int], least: int, most: float) -> float:
    """The share of answers whose thinking is within [least, most].

    Raises:
        ValueError: if there are none.
    """
    inside = [least <= count <= most for count in tokens]
    if not inside:
        raise ValueError("control needs at least one answer")
    return sum(inside) / len(inside)


def scaling(points: Sequence[tuple[float, float]], apart: float = 0.0) -> float:
    """Percentage points of accuracy for each doubling of the thinking tokens.

    The mean, over all pairs of settings, of the slope between the two. The paper leaves the unit
    open; its table comes out with tokens on a scale of base 2 and accuracy in percent.

    Args:
        points: mean thinking tokens, over 0, and accuracy from 0 to 1, of each setting.
        apart: doublings by which a pair must differ at least. Two settings that come to the same
            tokens but for chance have any slope between them; the paper has none such.

    Raises:
        ValueError: if no two settings differ so in tokens, or one has none.
    """
    if any(tokens <= 0 for tokens, _ in points):
        raise ValueError("scaling is about doublings, and a setting without thinking has none")
    slopes = [
        100 * (higher - lower) / math.log2(more / fewer)
        for (fewer, lower), (more, higher) in combinations(sorted(points), 2)
        if more != fewer and math.log2(more / fewer) >= apart
    ]
    if not slopes:
        raise ValueError("scaling needs two settings that differ in tokens")
    return sum(slopes) / len(slopes)


def performance(accuracies: Sequence[float]) -> float:
    """The best accuracy of all settings."""
    return max(accuracies)


def flattens_at(accuracies: Sequence[float], tolerance: float = 0.0) -> int:
    """The first setting, of rising budgets, that none of the later ones beats by more than this.

    Args:
        accuracies: from the smallest budget to the largest.
        tolerance: what counts as no gain, say the half-width of an interval.
    """
    return next(
        at for at, accuracy in enumerate(accuracies) if max(accuracies[at:]) - accuracy <= tolerance
    )
