import re
from collections import Counter
from collections.abc import Callable
from operator import add, mul, sub
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bench.outcomes.worlds import WORLDS, questions
from proctor.demo.simple_tasks import COPY, COUNT, MAX_WORDS, SIMPLE_TASKS
from proctor.evaluation.scorers import REGEX
from proctor.server.config.settings import load_settings

FOLDER = Path(__file__).resolve().parents[2] / "demo"
TEMPLATE = FOLDER / "smollm2.jinja"

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    r"\bplus\b|\bgets\b": add,
    r"\bminus\b|\bloses\b": sub,
    r"\btimes\b|\bMultiply\b": mul,
}

seeds = st.integers(0, 2**32)


def after(prompt: str, phrasings: tuple[str, ...]) -> str:
    """Return what a phrasing of copying or counting is filled with."""
    openings = [phrasing.removesuffix("{}") for phrasing in phrasings]
    return next(prompt.removeprefix(each) for each in openings if prompt.startswith(each))


@given(seeds)
def test_a_copy_is_what_follows_the_instruction(seed: int) -> None:
    task = SIMPLE_TASKS["copying"](Random(seed))
    assert after(task.prompt, COPY) == task.answer


@given(seeds)
def test_a_count_is_that_of_distinct_words(seed: int) -> None:
    task = SIMPLE_TASKS["counting"](Random(seed))
    words = after(task.prompt, COUNT).split(", ")
    assert len(set(words)) == len(words) == int(task.answer) <= MAX_WORDS


@given(seeds)
def test_a_result_is_that_of_the_numbers_and_the_word_between_them(seed: int) -> None:
    task = SIMPLE_TASKS["arithmetic"](Random(seed))
    first, second = map(int, re.findall(r"\d+", task.prompt))
    (operation,) = [each for word, each in OPERATIONS.items() if re.search(word, task.prompt)]
    assert operation(first, second) == int(task.answer) >= 0


@pytest.mark.parametrize("world", WORLDS)
def test_questions_are_distinct_and_of_all_kinds(world: str) -> None:
    rows = [*questions(world, 120)]
    assert rows == [*questions(world, 120)]
    assert len({row["question"] for row in rows}) == 120
    assert Counter(row["kind"] for row in rows) == dict.fromkeys(WORLDS[world], 40)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("copying", ("{}", " {}.\n"), ("The {}", "{} {}", "")),
        ("counting", ("{}", "There are {}.", "1 cat, 2 dogs: {}"), ("1{}", "{} or 99", "")),
        ("arithmetic", ("{}", "3 + 4 = {}."), ("1{}", "{} or 99", "")),
    ],
)
def test_patterns_match_right_answers_only(
    kind: str, right: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    rng = Random(7)
    for _ in range(20):
        task, (_, pattern) = SIMPLE_TASKS[kind](copy(rng)), WORLDS["simple"][kind](copy(rng))
        rng.random()
        assert all(REGEX.score(text.replace("{}", task.answer), pattern) for text in right)
        assert not any(REGEX.score(text.replace("{}", task.answer), pattern) for text in wrong)


def copy(rng: Random) -> Random:
    """Return a generator of the same numbers."""
    other = Random()
    other.setstate(rng.getstate())
    return other


def render(prompt: str, **switches: Any) -> str:
    """Render one turn as `transformers` does."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    messages = [{"role": "user", "content": prompt}]
    return template.render(messages=messages, add_generation_prompt=True, **switches)


def test_the_template_shows_how_to_think_and_opens_the_block() -> None:
    text = render("Count these: piano, horse")
    assert text.endswith(
        "user\nCount these: piano, horse<|im_end|>\n<|im_start|>assistant\n<think>"
    )
    assert "<think>1 cat, 2 sun, 3 cup.</think>\n3<|im_end|>" in text


def test_without_thinking_the_template_shows_answers_only() -> None:
    text = render("Count these: piano, horse", enable_thinking=False)
    assert text.endswith("<|im_start|>assistant\n")
    assert "think>" not in text
    assert "Count these: cat, sun, cup<|im_end|>\n<|im_start|>assistant\n3<|im_end|>" in text


def test_no_task_is_an_example() -> None:
    shown = set(re.findall(r"user\n(.*?)<\|im_end\|>", render("")))
    assert len(shown) == 13  # twelve examples, and the prompt
    asked = {row["question"] for row in questions("simple", 1200)}
    assert not shown & asked


def test_the_settings_have_three_tiers_for_the_router() -> None:
    settings = load_settings({"model": "smollm2"}, FOLDER / "smollm2.toml")
    assert settings.router.tiers == ("none", "low", "medium")
