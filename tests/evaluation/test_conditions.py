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
def test_what_is_asked_for(condition: Condition, name: str, fields: dict[str, Any]) -> None:
    assert condition.name == name
    assert condition.fields() == fields
    assert Condition.from_json(condition.to_json()) == condition


def test_another_servers_name_for_a_cap() -> None:
    field = "thinking_token_budget"
    assert Condition(Kind.CAP, 64).fields(field) == {field: 64}
    assert Condition(Kind.CAP, -1).fields(field) == {}


def test_what_a_command_asks_for() -> None:
    made = make_conditions([0, 4, 64, 64], [2], ["auto"], ["high"], votes=5)

    assert [condition.name for condition in made] == [
        *("at most 0", "at most 4", "at most 64"),
        *("2 continuations", "tier auto", "effort high", "5 of at most 12"),
    ]
    with pytest.raises(ValueError, match="nothing to compare"):
        make_conditions()
