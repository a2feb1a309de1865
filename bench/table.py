"""The cost of a step of one request in budget tables of several sizes, on the host.

    .venv/bin/python -m bench.table

The table has medians, with the loop detector on, as by default.
"""

import time
from statistics import median

import numpy as np

from proctor.budget import BudgetStateMachine, Markers, TokenBudget
from proctor.budget.budgets import OnLoop
from proctor.budget.processors.backend import ArrayBackend
from proctor.budget.processors.forced_sequences import NO_TOKEN
from proctor.budget.processors.table import BudgetTable

SIZES = (1, 16, 64, 256)
STEPS = 2000
MARKERS = Markers((5,), (6,), frozenset({0}))
BUDGET = TokenBudget(0, 10**6, opened=True, on_loop=OnLoop.CLOSE)


def main() -> None:
    print("| slots | advance, µs | constraints, µs |\n|--:|--:|--:|")
    for slots in SIZES:
        table = BudgetTable(slots, MARKERS, ArrayBackend(None))
        table.load(0, BUDGET, BudgetStateMachine(BUDGET, MARKERS))
        advance, constraints = [], []
        for step in range(STEPS):
            tokens = np.full(slots, NO_TOKEN)
            tokens[0] = 10 + step % 90
            began = time.perf_counter()
            table.advance(tokens, np.zeros(slots, dtype=bool))
            advanced = time.perf_counter()
            table.constraints(table.state, np.array([0]))
            constraints.append(time.perf_counter() - advanced)
            advance.append(advanced - began)
        print(f"| {slots} | {1e6 * median(advance):.0f} | {1e6 * median(constraints):.0f} |")


if __name__ == "__main__":
    main()
