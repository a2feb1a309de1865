"""Tasks that small pretrained models can do in part: copying, counting, arithmetic of one step.

Their phrasings, their numbers and their words are others than those of `world`. How to ask
SmolLM2: `smollm2.toml` and `smollm2.jinja`, whose examples no task repeats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_NOUNS = (
    "apple river stone chair cloud tiger bread piano candle garden window rabbit ticket silver "
    "orange pencil bottle forest lemon spoon horse paper queen mirror"
)
WORDS = tuple(_NOUNS.split())
ADJECTIVES = ("big", "cold", "dark", "new", "old", "red", "small", "soft", "warm", "white")
MAX_PHRASES = 3
MIN_WORDS, MAX_WORDS = 2, 7
MAX_OPERAND, MAX_FACTOR = 20, 9

COPY = ("Repeat: {}", "Copy this text: {}", "Write again: {}")
COUNT = ("Count these: {}", "How many are in this list? {}", "How many words are here? {}")
NAMES = ("Tom", "Ann", "Ben", "Eva")
THINGS = ("eggs", "coins", "books")
ARITHMETIC = {
    "+": ("What is {} plus {}?", "{name} has {} {things} and gets {} more. How many are there?"),
    "-": ("What is {} minus {}?", "{name} has {} {things} and loses {}. How many are left?"),
    "*": ("What is {} times {}?", "Multiply {} by {}."),
}


@dataclass(frozen=True)
class SimpleTask:
    """A prompt, and the text of its right answer."""

    prompt: str
    answer: str


def draw_copy(rng: Random) -> SimpleTask:
    """Draw a text of one to three phrases, such as "the old river", that is to be repeated."""
    nouns = rng.sample(WORDS, rng.randint(1, MAX_PHRASES))
    text = " and ".join(f"the {rng.choice(ADJECTIVES)} {noun}" for noun in nouns)
    return SimpleTask(rng.choice(COPY).format(text), text)


def draw_count(rng: Random) -> SimpleTask:
    """Draw a list of words that are to be counted."""
    words = rng.sample(WORDS, rng.randint(MIN_WORDS, MAX_WORDS))
    return SimpleTask(rng.choice(COUNT).format(", ".join(words)), str(len(words)))


def draw_arithmetic(rng: Random) -> SimpleTask:
    """Draw a sum, a difference of 0 or more, or a product."""
    op = rng.choice("+-*")
    most = MAX_FACTOR if op == "*" else MAX_OPERAND
    first, second = rng.randint(2, most), rng.randint(2, most)
    if op == "-":
        first, second = max(first, second), min(first, second)
    answer = {"+": first + second, "-": first - second, "*": first * second}[op]
    phrasing = rng.choice(ARITHMETIC[op])
    story = {"name": rng.choice(NAMES), "things": rng.choice(THINGS)}
    return SimpleTask(phrasing.format(first, second, **story), str(answer))


SIMPLE_TASKS: dict[str, Callable[[Random], SimpleTask]] = {
    "copying": draw_copy,
    "counting": draw_count,
    "arithmetic": draw_arithmetic,
}
