"""The worlds: prompts of several kinds, with patterns of their right answers."""

import re
from collections.abc import Callable, Iterator
from random import Random

from proctor.demo.lessons import APOLOGY, off_domain_prompt
from proctor.demo.simple_tasks import SIMPLE_TASKS
from proctor.demo.world import draw_problem, phrase

SEED = 19

Ask = Callable[[Random], tuple[str, str]]
"""Draws a prompt, and the pattern of its right answers."""


def number(answer: int | str) -> str:
    """Return a pattern of texts whose last number is the answer."""
    return rf"(?<!\d)0*{answer}\D*\Z"


def text(answer: str, end: str = "") -> str:
    """Return a pattern of a text, alone, and of what may end it."""
    return rf"\A\s*{re.escape(answer)}{end}\s*\Z"


def draw_elsewhere(rng: Random) -> tuple[str, str]:
    """Draw a prompt outside the demo model's domain, for which it has one sentence."""
    return off_domain_prompt(rng), text(APOLOGY)


def draw_step(rng: Random) -> tuple[str, str]:
    """Draw a problem of one step."""
    return _chain(rng, 1)


def draw_chain(rng: Random) -> tuple[str, str]:
    """Draw a problem of 3 to 8 steps."""
    return _chain(rng, rng.randint(3, 8))


def _chain(rng: Random, steps: int) -> tuple[str, str]:
    problem = draw_problem(rng, steps, unseen=True)
    return phrase(problem, rng), number(problem.answer)


def _simple(kind: str) -> Ask:
    def draw(rng: Random) -> tuple[str, str]:
        task = SIMPLE_TASKS[kind](rng)
        copied = kind == "copying"
        return task.prompt, text(task.answer, end=r"\.?") if copied else number(task.answer)

    return draw


WORLDS: dict[str, dict[str, Ask]] = {
    "demo": {"elsewhere": draw_elsewhere, "one step": draw_step, "a chain": draw_chain},
    "simple": {kind: _simple(kind) for kind in SIMPLE_TASKS},
}


def questions(world: str, count: int) -> Iterator[dict[str, str]]:
    """Yield distinct prompts of all kinds of a world, in turn, with patterns of right answers."""
    rng, seen, kinds = Random(SEED), set[str](), [*WORLDS[world].items()]
    while len(seen) < count:
        kind, draw = kinds[len(seen) % len(kinds)]
        prompt, answer = draw(rng)
        if prompt not in seen:
            yield {"id": f"q{len(seen)}", "question": prompt, "answer": answer, "kind": kind}
            seen.add(prompt)
