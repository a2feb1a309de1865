from typing import Any

import pytest

from proctor.evaluation.cli import make_conditions
from proctor.evaluation.conditions import Condition, Kind


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
    ],
)
def test_a_condition_has_a_name_and_request_fields(
    condition: Condition, name: str, fields: dict[str, Any]
) -> None:
    assert condition.name == name
    assert condition.fields() == fields
    assert Condition.from_json(condition.to_json()) == condition


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
