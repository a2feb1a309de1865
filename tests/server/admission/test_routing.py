"""The router of the server: without an outcome model, with one, and exploring."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from proctor.router import Conversation, Costs, decide, load
from proctor.server.admission.routing import Router
from proctor.server.config.budgets import RouterSettings
from proctor.server.config.section import ConfigError
from proctor.server.engines.fake import FakeEngine
from tests.router.outcomes.models import model
from tests.server.harness import body, client

ROUTE = "/v1/route"
HARD = "Prove that there are infinitely many primes."
PROMPTS = ["hi", "Translate 'bread' to French.", HARD, "What is 3 + 4?", "Fix this race: x = f(a)"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a model for the classifier `rules`, which has no features."""
    model().save(tmp_path / "model.npz")
    return tmp_path / "model.npz"


def settings(**fields: Any) -> RouterSettings:
    return RouterSettings(classifier="rules", **fields)


@pytest.mark.parametrize("classifier", ["rules", "ensemble"])
@pytest.mark.parametrize("costs", [Costs(), Costs(none=(0.0, 0.1, 0.2, 0.3))])
def test_without_a_model_the_costs_decide_as_they_always_did(classifier: str, costs: Costs) -> None:
    router = Router.load(RouterSettings(classifier=classifier, costs=costs))
    for prompt in [*PROMPTS, *(f"What is {number} times {number}?" for number in range(50))]:
        conversation = Conversation.of(prompt)
        routed = router.classify_conversation(conversation)
        prediction = load(classifier).classify(conversation)
        assert routed.level == decide(prediction.probabilities, costs)
        assert routed.choice.tier == routed.level
        assert routed.choice.rule == "costs"
        assert routed.prediction == prediction


async def test_the_numbers_of_each_tier_are_shown(path: Path) -> None:
    router = {"classifier": "rules", "model": path, "error_cost": 1000}
    async with client(FakeEngine(), default_tier="auto", router=router) as http:
        messages = [{"role": "user", "content": HARD}]
        shown = (await http.post(ROUTE, json=body(messages=messages))).json()

    report = shown["router"]
    assert shown["source"] == "router"
    assert (report["rule"], report["error_cost"]) == ("error_cost", 1000.0)
    costs = {tier: expected["cost"] for tier, expected in report["tiers"].items()}
    assert [*costs] == ["none", "low", "medium", "high"]
    assert shown["tier"] == min(costs, key=lambda tier: costs[tier])
    for expected in report["tiers"].values():
        cost = 1000 * (1 - expected["right"]) + expected["thinking_tokens"]
        assert expected["cost"] == pytest.approx(cost, abs=1.0)


async def test_without_a_model_there_are_no_numbers() -> None:
    async with client(FakeEngine(), default_tier="auto") as http:
        shown = (await http.post(ROUTE, json=body())).json()
    report = shown["router"]
    assert (report["rule"], report["error_cost"], report["tiers"]) == ("costs", None, None)


async def test_where_only_accuracy_counts_there_is_no_cost(path: Path) -> None:
    router = {"classifier": "rules", "model": path, "min_accuracy": 0.99}
    async with client(FakeEngine(), default_tier="auto", router=router) as http:
        shown = (await http.post(ROUTE, json=body())).json()
    report = shown["router"]
    assert (report["rule"], report["error_cost"]) == ("min_accuracy", None)
    assert {expected["cost"] for expected in report["tiers"].values()} == {None}


@pytest.mark.parametrize("with_model", [False, True])
def test_a_share_of_the_prompts_explores(with_model: bool, path: Path) -> None:
    more = {"model": path, "error_cost": 1000.0} if with_model else {}
    plain = Router.load(settings(**more))
    exploring = Router.load(settings(**more, explore=0.1))
    conversations = [Conversation.of(f"What is {number} + 2?") for number in range(2000)]
    explored = 0
    for conversation in conversations:
        routed = exploring.classify_conversation(conversation)
        again = exploring.classify_conversation(conversation)
        usual = plain.classify_conversation(conversation)
        assert routed.choice.tier == routed.level == again.level
        if routed.choice.rule == "explore":
            explored += 1
            assert routed.level != usual.level
        else:
            assert routed.level == usual.level
    assert explored / 2000 == pytest.approx(0.1, abs=0.025)


def test_levels_of_one_tier_are_one_choice() -> None:
    levels = {"none": "low", "low": "low", "medium": "medium", "high": "medium"}
    router = Router.load(settings(levels=levels, explore=0.5))
    assert settings(levels=levels).tiers == ("low", "medium")
    found = {
        (routed.level, routed.choice.tier)
        for number in range(200)
        for routed in [router.classify_conversation(Conversation.of(f"{HARD} {number}"))]
        if routed.choice.rule == "explore"
    }
    assert found <= {("none", "low"), ("medium", "medium")}


def test_a_model_that_cannot_be_used_is_named(path: Path, tmp_path: Path) -> None:
    nowhere = settings(model=tmp_path / "nowhere.npz", error_cost=1.0)
    with pytest.raises(ConfigError, match=r"router\.model: .*nowhere\.npz is not an outcome"):
        Router.load(nowhere)
    with pytest.raises(ConfigError, match=r"4 features, the classifier gives \d+"):
        Router.load(RouterSettings(model=path, error_cost=1.0))
    other = replace(model(), tiers=np.array(["none", "low", "medium", "max"]))
    other.save(path)
    with pytest.raises(ConfigError, match="about the tiers none, low, medium, max; those of"):
        Router.load(settings(model=path, error_cost=1.0))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "x.npz"}, "model requires error_cost, mean_thinking_tokens or min_accuracy"),
        ({"error_cost": 1.0, "mean_thinking_tokens": 1.0}, "mutually exclusive"),
        ({"error_cost": 0.0}, "error_cost"),
        ({"min_accuracy": 1.0}, "min_accuracy"),
        ({"explore": 0.6}, "explore"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        settings(**fields)
