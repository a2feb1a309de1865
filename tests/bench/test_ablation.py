"""What the ablation runs, and how it compares the arms."""

import argparse
from pathlib import Path

import pytest

from bench.curation import ablation
from bench.curation.ablation import ARMS, RECIPES, Setup, accuracies, differences
from bench.curation.scorer import ANSWER
from proctor.evaluation import cli as eval_cli
from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.report.findings import ConditionResults, Findings
from proctor.evaluation.rows import AnswerRecord
from proctor.training import cli as train_cli

SETUP = Setup(Path("/pool"), Path("/base"), steps=40)


def test_each_arm_has_a_recipe_that_keeps_evaluations_out() -> None:
    assert {path.stem for path in RECIPES.glob("*.toml")} == set(ARMS)
    for arm in ARMS:
        text = (RECIPES / f"{arm}.toml").read_text()
        assert 'against = ["seen.jsonl", "unseen.jsonl"]' in text
        assert "size = 1000" in text


def test_commands_are_ones_that_proctor_has() -> None:
    train, evaluate = argparse.ArgumentParser(), argparse.ArgumentParser()
    train_cli.add_arguments(train)
    eval_cli.add_arguments(evaluate)
    begin = len(ablation.PROCTOR) + 1
    for resume in (False, True):
        command = ablation.train_command(SETUP, "random", resume=resume)
        options = train.parse_args(command[begin:])
        assert (options.max_steps, options.resume) == (40, resume)
        assert options.data == Path("/pool/random/rows.jsonl")
        assert options.batch % options.device_batch == 0
    asked = evaluate.parse_args(ablation.eval_command(SETUP, "random", "seen.jsonl")[begin:])
    assert asked.out == Path("/pool/random/seen.jsonl")
    assert asked.budgets[0] == 0


def record(question: str, condition: Condition, is_right: bool) -> AnswerRecord:
    usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}}
    response = {"usage": usage, "choices": [{"thinking": {"end_reason": "natural"}}]}
    return AnswerRecord(condition, question, 0, float(is_right), "5", None, 1.0, response)


def records(right: dict[str, bool]) -> Findings:
    condition = Condition(Kind.CAP, 40)
    rows = tuple(record(question, condition, is_right) for question, is_right in right.items())
    return Findings((ConditionResults(condition, rows),))


def test_arms_are_compared_by_question() -> None:
    questions = [f"q{index}" for index in range(40)]
    results = {
        "curated": records(dict.fromkeys(questions, True)),
        "random": records({each: index % 2 == 0 for index, each in enumerate(questions)}),
    }
    assert next(iter(accuracies(results))) == "| condition | curated | random |"
    name = Condition(Kind.CAP, 40).name
    (line,) = (each for each in accuracies(results) if each.startswith(f"| {name}"))
    assert "| 100.0% [92.9%, 100.0%] | 50.0% [" in line
    (line,) = (each for each in differences(results) if each.startswith(f"| {name}"))
    assert line.startswith(f"| {name} | 50.0% [3")


@pytest.mark.parametrize(
    ("answer", "right", "expected"),
    [
        ("42", "42", 1),
        ("The total is 42.", "42", 1),
        ("142", "42", 0),
        ("42 and then 43", "42", 0),
        ("It costs 3.50 euros.", "3.50", 1),
        ("So\n**Thursday**.", "Thursday", 1),
        ("Thursday or Friday", "Thursday", 0),
        ("It is not Thursday, but Friday", "Friday", 1),
        ("The list is 3, 5, 12.", "3, 5, 12", 1),
        ("13, 5, 12", "3, 5, 12", 0),
        ("no", "yes", 0),
        ("9:05", "9:05", 1),
        ("19:05", "9:05", 0),
        ("", "42", 0),
    ],
)
def test_answers_are_scored_by_how_their_last_line_ends(
    answer: str, right: str, expected: float
) -> None:
    assert ANSWER.score(answer, right) == expected
