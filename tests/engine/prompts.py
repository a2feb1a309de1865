"""Prompts of any length in the language of the demo model, without the code of `demo/`."""

from random import Random

WORDS = {"+": "add", "-": "subtract", "*": "times"}


def chain(rng: Random, steps: int) -> str:
    """Return a question about a chain of arithmetic, in words."""
    parts = [f"Start with {rng.randrange(100)}"]
    for _ in range(steps):
        op = rng.choice("+-*")
        parts.append(f"{WORDS[op]} {rng.randint(2, 9)}")
    return ", ".join(parts) + ". What are the last two digits?"
