"""The cost of routing a prompt, on one core.

    .venv/bin/python -m bench.router

Prompts repeat a sentence up to a given size, so that long ones are full of signals.
The table has the median and the 99th percentile of wall-clock time, and of CPU time,
which is more reliable on a shared machine.
"""

import argparse
import time

import numpy as np

from proctor.router import Conversation, load

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=300, help="number of times each prompt is routed"
    )
    rounds = parser.parse_args().rounds
    print("| classifier | prompt | p50, ms | p99, ms | p50, CPU ms | p99, CPU ms |")
    print("|---|---|--:|--:|--:|--:|")
    for name in ("rules", "ensemble"):
        classifier = load(name)
        classifier.classify(Conversation.of("warm up"))
        for label, size in SIZES.items():
            prompts = [Conversation.of(prompt(sentence, size)) for sentence in SENTENCES]
            wall_times, cpu_times = [], []
            for _ in range(rounds):
                for each in prompts:
                    began, cpu_began = time.perf_counter(), time.thread_time()
                    classifier.classify(each)
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
