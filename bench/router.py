"""The cost of routing a prompt, on one core.

    .venv/bin/python -m bench.router

Prompts repeat a sentence up to a given size, so that long ones are full of signals.
The table has the median and the 99th percentile of wall-clock time, and of CPU time,
which is more reliable on a shared machine. `learned` is `ensemble` with an outcome
model that chooses among four tiers.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from proctor.router import Classifier, Conversation, decide, load
from proctor.router.conversation import bounded
from proctor.router.outcomes.features import extract
from proctor.router.outcomes.model import OutcomeModel
from proctor.router.outcomes.policy import Objective, Policy, positions
from proctor.router.outcomes.prior import Prior

SIZES = {"100 B": 100, "4 KB": 4096, "1 MB": 1 << 20}
SENTENCES = [
    "Prove that the sum of two odd integers is even, and say for which n the bound is sharp. ",
    "Our queue hands out 12 jobs twice under load; find the race and fix this: `x = f(a, b)`.\n",
    "Please translate the following into French and keep it under 40 words: the lake was calm. ",
    "Три поезда вышли в 9:40, сколько километров они пройдут вместе за 3 часа? ",
    "请证明这个数列收敛，并计算它的极限，然后写一个函数来验证。",
    "Use the max tier. Think carefully, step by step. ",
]


def prompt(sentence: str, size: int) -> str:
    """Repeat a sentence up to `size` bytes."""
    repeated = sentence * (1 + size // len(sentence.encode()))
    return repeated.encode()[:size].decode(errors="ignore")


def policy(classifier: Classifier) -> Policy:
    """Return a policy for the features of a classifier, with random weights."""
    width = len(extract(classifier.classify(Conversation.of(""))))
    generator = np.random.default_rng(0)
    weights = generator.normal(0.0, 0.01, (2, 4, width)).astype(np.float32)
    zeros = np.zeros(4, np.float32)
    frontier = (np.array([0.0, np.inf]), np.zeros(2), np.ones(2))
    model = OutcomeModel(
        np.array(["none", "low", "medium", "high"]),
        np.full(4, 1000),
        Prior.of().right.astype(np.float32),
        zeros + 1,
        weights[0],
        zeros,
        weights[1],
        zeros,
        *frontier,
    )
    return Policy(model, Objective(error_cost=500.0))


def routers() -> dict[str, Callable[[Conversation], object]]:
    """Return what is measured, by name."""
    rules, ensemble = load("rules"), load("ensemble")
    learned = policy(ensemble)

    def by_outcomes(conversation: Conversation) -> object:
        position, *_ = positions(bounded(conversation.prompt))
        return learned.choose(ensemble.classify(conversation), position)

    def by_costs(classifier: Classifier) -> Callable[[Conversation], object]:
        return lambda conversation: decide(classifier.classify(conversation).probabilities)

    return {"rules": by_costs(rules), "ensemble": by_costs(ensemble), "learned": by_outcomes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=300, help="number of times each prompt is routed"
    )
    rounds = parser.parse_args().rounds
    print("| router | prompt | p50, ms | p99, ms | p50, CPU ms | p99, CPU ms |")
    print("|---|---|--:|--:|--:|--:|")
    for name, route in routers().items():
        route(Conversation.of("warm up"))
        for label, size in SIZES.items():
            prompts = [Conversation.of(prompt(sentence, size)) for sentence in SENTENCES]
            wall_times, cpu_times = [], []
            for _ in range(rounds):
                for each in prompts:
                    began, cpu_began = time.perf_counter(), time.thread_time()
                    route(each)
                    cpu_times.append(time.thread_time() - cpu_began)
                    wall_times.append(time.perf_counter() - began)
            figures = [
                np.percentile(times, percentile) * 1e3
                for times in (wall_times, cpu_times)
                for percentile in (50, 99)
            ]
            cells = " | ".join(f"{figure:.2f}" for figure in figures)
            print(f"| {name} | {label} | {cells} |")


if __name__ == "__main__":
    main()
