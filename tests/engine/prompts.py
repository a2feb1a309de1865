"""Prompts from the demo model's world, of any length, without its code."""

from random import Random

WORDS = {"+": "add", "-": "subtract", "*": "times"}


def chain(rng: Random, steps: int) -> str:
    """A chain of arithmetic in plain words."""
    parts = [f"Start with {rng.randrange(100)}"]
    for _ in range(steps):
        op = rng.choice("+-*")
        parts.append(f"{WORDS[op]} {rng.randint(2, 9)}")
    return ", ".join(parts) + ". What are the last two digits?"
