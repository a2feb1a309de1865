"""Both samplers of s1 as obviously as possible: weights of all rows, computed anew for each draw.

The draws are those of `numpy.random.choice`: a uniform number looked up in cumulated weights.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from random import Random

import numpy as np

from proctor.curation.selection import Candidate


def choose(weights: Sequence[float], rng: Random) -> int:
    cumulated = np.cumsum(np.array(weights) / np.sum(weights))
    return int(np.searchsorted(cumulated / cumulated[-1], rng.random(), side="right"))


def sample(
    candidates: Sequence[Candidate],
    preselected: Collection[str],
    size: int,
    rng: Random,
    uniform_until: int,
    mix: Mapping[str, int],
    spend_on_preselected: bool,
) -> set[str]:
    """Return the ids that the paper chooses (nothing is spent), or the notebook."""
    selected = set(preselected)
    left = [each for each in candidates if spend_on_preselected or each.id not in selected]
    while len(selected) < size:
        domains = sorted({each.domain for each in left})
        if len(selected) < uniform_until:
            domain = domains[choose([1] * len(domains), rng)]
        else:
            domain = domains[choose([mix.get(each, 0) for each in domains], rng)]
        inside = [each for each in left if each.domain == domain]
        inside.sort(key=lambda each: (each.trace_tokens, each.id), reverse=True)
        chosen = inside[choose([2.0**-rank for rank in range(len(inside))], rng)]
        selected.add(chosen.id)
        left.remove(chosen)
    return selected


def benchmark_mix(candidates: Sequence[Candidate], first: str, second: str) -> Counter[str]:
    """Return the notebook's target mix: the second benchmark at half of the first's total."""
    first_counts = Counter(each.domain for each in candidates if each.source == first)
    second_counts = Counter(each.domain for each in candidates if each.source == second)
    scale = 0.5 * first_counts.total() / max(1, second_counts.total())
    halved = Counter({domain: int(count * scale) for domain, count in second_counts.items()})
    return halved + first_counts
