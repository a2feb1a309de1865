import json
from typing import Any

import pytest

from proctor.evaluation.cli import make_conditions
from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.options.thinking import EarlyExit, Parallel


@pytest.mark.parametrize(
    ("condition", "name", "fields"),
    [
        (Condition(Kind.CAP, 0), "at most 0", {"max_thinking_tokens": 0}),
        (Condition(Kind.CAP, -1), "no maximum", {"max_thinking_tokens": -1}),
        (Condition(Kind.CAP, 64, 5), "5 of at most 12", {"max_thinking_tokens": 12}),
        (
            Condition(Kind.CONTINUATIONS, 1),
            "1 continuation",
            {"max_thinking_tokens": -1, "thinking": {"continuations": 1}},
        ),
        (Condition(Kind.TIER, "auto"), "tier auto", {"budget_tier": "auto"}),
        (Condition(Kind.EFFORT, "low"), "effort low", {"reasoning_effort": "low"}),
        (
            Condition(Kind.CONTINUATIONS, 2, early_exit=EarlyExit("answer", patience=2)),
            "2 continuations + early exit answer:patience=2",
            {
                "max_thinking_tokens": -1,
                "thinking": {
                    "continuations": 2,
                    "early_exit": {"method": "answer", "patience": 2},
                },
            },
        ),
        (
            Condition(Kind.CAP, 64, parallel=Parallel(4, "vote", "number", 0.5)),
            "at most 64 + parallel 4:vote:answer=number:keep=0.5",
            {
                "max_thinking_tokens": 64,
                "thinking": {
                    "parallel": {"chains": 4, "method": "vote", "answer": "number", "keep": 0.5}
                },
            },
        ),
        (
            Condition(Kind.TIER, "low", early_exit=EarlyExit("entropy")),
            "tier low + early exit entropy",
            {"budget_tier": "low", "thinking": {"early_exit": {"method": "entropy"}}},
        ),
    ],
)
def test_a_condition_has_a_name_and_request_fields(
    condition: Condition, name: str, fields: dict[str, Any]
) -> None:
    assert condition.name == name
    assert condition.fields() == fields
    assert Condition.from_json(json.loads(json.dumps(condition.to_json()))) == condition


def test_the_request_field_of_a_cap_can_be_another() -> None:
    field = "thinking_token_budget"
    assert Condition(Kind.CAP, 64).fields(field) == {field: 64}
    assert Condition(Kind.CAP, -1).fields(field) == {}


def test_conditions_from_command_options() -> None:
    conditions = make_conditions([0, 4, 64, 64], [2], ["auto"], ["high"], votes=5)

    assert [condition.name for condition in conditions] == [
        *("at most 0", "at most 4", "at most 64"),
        *("2 continuations", "tier auto", "effort high", "5 of at most 12"),
    ]
    with pytest.raises(ValueError, match="nothing to compare"):
        make_conditions()


def test_files_without_options_are_read() -> None:
    stored = {"kind": "cap", "value": 64, "votes": 5}
    assert Condition.from_json(stored) == Condition(Kind.CAP, 64, 5)
    assert Condition(Kind.CAP, 64, 5).to_json() == stored


@pytest.mark.parametrize(
    ("condition", "fixed"),
    [
        (Condition(Kind.CAP, 64), True),
        (Condition(Kind.TIER, "low"), True),
        (Condition(Kind.TIER, "auto"), False),
        (Condition(Kind.CAP, 64, votes=2), False),
        (Condition(Kind.CAP, 64, early_exit=EarlyExit("entropy")), False),
        (Condition(Kind.CAP, 64, parallel=Parallel(2, "vote")), False),
    ],
)
def test_a_fixed_condition_gives_every_question_the_same(condition: Condition, fixed: bool) -> None:
    assert condition.is_fixed is fixed
    assert condition.proctor_only is (condition.kind == Kind.TIER or bool(condition.options))


def test_options_apply_to_the_budgets_that_they_make_sense_with() -> None:
    conditions = make_conditions(
        [0, 3, 64, -1],
        [2],
        ["low"],
        ["high"],
        early_exits=[EarlyExit("entropy"), EarlyExit("answer")],
        parallels=[Parallel(4, "vote")],
    )

    options = [condition for condition in conditions if condition.options]
    assert [condition.name for condition in options] == [
        *(
            f"{budget} + early exit {method}"
            for method in ("entropy", "answer")
            for budget in ("at most 3", "at most 64", "no maximum", "2 continuations", "tier low")
        ),
        # Three tokens cannot be shared among four chains; without a cap there is no total.
        *(f"{budget} + parallel 4:vote" for budget in ("at most 0", "at most 64", "tier low")),
    ]
    assert {condition.without_options for condition in options} <= set(conditions)


@pytest.mark.parametrize(
    "text",
    [
        "entropy",
        "entropy:threshold=0.25",
        "answer:every=32:patience=3:answer=choice",
        "confidence:threshold=-1.0",
    ],
)
def test_early_exit_is_written_as_it_is_read(text: str) -> None:
    assert EarlyExit.parse(text).name == text


@pytest.mark.parametrize(
    "text", ["5:vote", "2:first_agreement:answer=text", "8:best_by_key:keep=2"]
)
def test_parallel_is_written_as_it_is_read(text: str) -> None:
    assert Parallel.parse(text).name == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not one of entropy, answer, confidence"),
        ("guess", "'guess' is not one of entropy"),
        ("answer:patience=0", "'0' is not a positive integer"),
        ("answer:threshold=low", "'low' is not a number"),
        ("answer:answer=sum", "'sum' is not one of number, choice, text"),
        ("answer:chains=2", "'chains=2' is not one of threshold=…, every=…"),
        ("answer:2", "'2' is not one of threshold=…"),
        ("answer:every=2:every=3", "'every=3' .* at most once"),
    ],
)
def test_an_invalid_early_exit_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyExit.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vote", "'vote' is not a positive integer"),
        ("5", "'' is not one of vote, confidence"),
        ("0:vote", "'0' is not a positive integer"),
        ("5:vote:patience=2", "'patience=2' is not one of answer=…, keep=…"),
    ],
)
def test_an_invalid_parallel_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Parallel.parse(text)
