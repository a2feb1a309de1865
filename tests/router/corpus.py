"""A small synthetic corpus to train on in tests."""

import json
import random
from pathlib import Path

TEMPLATES = {
    "none": ["say hello to {}", "translate {} into French", "who was {}", "thanks, {}"],
    "low": ["what is {n} plus {m}", "list {n} facts about {}", "explain {} in a sentence"],
    "medium": [
        "{} has {n} boxes of {m} and gives half away, then buys {k} more. How many are left?",
        "write a python function that sorts {} by its {n} keys and test it",
    ],
    "high": [
        "prove that every continuous function on {} with {n} roots is bounded",
        "find all primes p such that p^{n} + {m} is a perfect square, with proof about {}",
    ],
}
NAMES = ["Ada", "the lake", "a graph", "Oslo", "the set", "her brother", "a kite", "the moon"]


def write(path: Path, count: int = 160, sources: int = 6) -> Path:
    """Write `count` records that a model can learn; deterministic."""
    rng = random.Random(7)
    tiers = list(TEMPLATES)
    lines = []
    for number in range(count):
        tier = tiers[number % len(tiers)]
        numbers = {name: rng.randrange(2, 90) for name in "nmk"}
        prompt = rng.choice(TEMPLATES[tier]).format(rng.choice(NAMES), **numbers)
        meta = {"border": number % 5 == 0, "labelled": "hand" if number % 3 == 0 else "rule"}
        record = {
            "prompt": prompt,
            "tier": tier,
            "source": f"s{number // len(tiers) % sources}",
            "meta": meta,
        }
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
