"""Questions of the demo model's own kind, for evaluations."""

from random import Random
from typing import Any

from proctor.demo.world import draw_problem, phrase

FEWEST_STEPS, MOST_STEPS = 3, 8


def chains(count: int, seed: int) -> list[dict[str, Any]]:
    """Chains of sums that the model has not been trained on, of rising length."""
    rng = Random(seed)
    span = MOST_STEPS - FEWEST_STEPS + 1
    rows = []
    for number in range(count):
        steps = FEWEST_STEPS + number * span // count
        problem = draw_problem(rng, steps, unseen=True)
        rows.append(
            {
                "id": f"{seed}-{number}",
                "question": phrase(problem, rng),
                "answer": str(problem.answer),
                "steps": steps,
            }
        )
    return rows
