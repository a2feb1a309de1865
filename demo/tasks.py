"""The evaluation task `chains`: questions of the demo model's domain."""

from random import Random
from typing import Any

from proctor.demo.world import draw_problem, phrase

MIN_STEPS, MAX_STEPS = 3, 8


def chains(count: int, seed: int) -> list[dict[str, Any]]:
    """Return chains of arithmetic, of rising length, that the model was not trained on."""
    rng = Random(seed)
    span = MAX_STEPS - MIN_STEPS + 1
    rows = []
    for number in range(count):
        steps = MIN_STEPS + number * span // count
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
