"""The settings of further models."""

from pathlib import Path
from typing import Any

import pytest

from proctor.server.config.engine import ReplicaSettings
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings, load_settings
from proctor.server.engines.factory import check_tiers, further_engines
from tests.server.auth.keys import configured_key
from tests.server.models.two_models import PRICES, SMALL, SMALL_PRICES, TIERS

LEDGER = {"url": "sqlite:///x.db"}
KEY = configured_key("team", per_day="1")[0]
SMALL_TIERS = [{**tier, "max_tokens": 9} for tier in TIERS if "model" not in tier]
SMALL_TIERS.insert(1, {"name": "low", "max_tokens": 9, "wrap_up_text": "So:"})
PRICED = [{**TIERS[0], "max_price": "1"}, *TIERS[1:]]
LOW = TIERS[1]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def load(model: dict[str, Any] | None = None, **fields: Any) -> Settings:
    return load_settings({"model": "m", "models": [SMALL | (model or {})], **fields})


def test_a_model_has_settings_of_its_own_and_shares_the_others() -> None:
    settings = load(
        {"tiers": SMALL_TIERS, "prices": SMALL_PRICES, "budget": {"wrap_up_text": "small"}},
        aliases=["a"],
        prices=PRICES,
        tool_call_parser="hermes",
        thinking_start="<a>",
        thinking_end="</a>",
        limits={"max_choices": 3},
    )
    small = settings.of_model("small")

    assert (small.model_name, small.model_path, small.aliases) == ("small", "org/small", ("tiny",))
    assert isinstance(small.remote_engine, ReplicaSettings)
    assert (small.tool_call_parser, small.thinking_start) == (None, None)
    assert small.prices is not None
    assert small.prices.thinking * 10 == settings.prices_of(None).thinking  # type: ignore[union-attr]
    assert [tier.max_tokens for tier in small.tiers] == [9] * 5
    assert small.budget.wrap_up_text == "small"
    assert small.limits.max_choices == 3
    assert [*further_engines(settings)] == ["small"]


def test_tiers_are_those_of_the_top_level_and_prices_never() -> None:
    settings = load(tiers=TIERS, prices=PRICES)
    small, low = settings.of_model("small"), settings.tier("low")

    assert [tier.name for tier in small.tiers] == [tier.name for tier in settings.tiers]
    assert not any(tier.model for tier in small.tiers)
    assert small.prices is None
    assert settings.prices_of(low) is None
    assert settings.prices_of(settings.tier("high")) == settings.prices


def test_what_a_tier_omits_is_from_the_budget_of_its_model() -> None:
    settings = load({"budget": {"wrap_up_text": "small"}}, tiers=TIERS, budget={"landing": "hard"})

    assert settings.default_budget(settings.tier("low")).wrap_up_text == "small"
    assert settings.default_budget(settings.tier("high")) is settings.budget
    assert settings.default_budget(None) is settings.budget


@pytest.mark.parametrize(
    ("model", "fields", "wrong"),
    [
        ({"engine": {}}, {}, "models.0.engine: kind must be set"),
        ({"engine": {"kind": "other"}}, {}, r"models.0 \('small'\): engine.kind: Must be"),
        ({"engine": {"kind": "vllm", "urls": []}}, {}, "models.0.*: engine.urls: "),
        ({"unknown": 1}, {}, "models.0.unknown: "),
        ({"name": "m"}, {}, "models: Duplicate name 'm'"),
        ({"aliases": ["small"]}, {}, "models: Duplicate name 'small'"),
        ({}, {"aliases": ["tiny"]}, "models: Duplicate name 'tiny'"),
        ({"thinking_start": "<t>"}, {}, "models.0 .*thinking_start and thinking_end"),
        ({"tiers": SMALL_TIERS[1:]}, {}, r"models.0 .*efforts.none: Unknown tier 'none'"),
        ({"tiers": SMALL_TIERS[:4] * 2}, {}, "models.0 .*tiers: Names must be unique"),
        ({"tiers": [LOW]}, {}, "models.0.tiers: 'low' must not have a model"),
        (
            {"tiers": [{"name": "low", "max_tokens": 1, "session": {"max_requests": 1}}]},
            {},
            "models.0.tiers: The session limits of 'low' hold for all models",
        ),
        ({}, {"tiers": [*TIERS[:4], {**LOW, "name": "max", "model": "m"}]}, "tiers: The model of"),
        ({}, {"tiers": [*TIERS[:4], {**LOW, "name": "max", "model": "tiny"}]}, "not 'tiny'"),
        (
            {"prices": {**PRICES, "currency": "EUR"}},
            {"prices": PRICES},
            "models.0.prices.currency: Must be USD",
        ),
        ({}, {"tiers": PRICED, "prices": PRICES}, "models.0 .*The max_price of 'none' requires"),
        (
            {},
            {"tiers": [TIERS[0], {**LOW, "max_price": "1"}, *TIERS[2:]], "prices": PRICES},
            "tiers: The max_price of 'low' requires",
        ),
        (
            {},
            {"keys": [KEY], "prices": PRICES, "ledger": LEDGER},
            "models.0 .*spending limits of 'team' require",
        ),
    ],
)
def test_invalid_settings_are_named(
    model: dict[str, Any], fields: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(ConfigError, match=wrong):
        load(model, **fields)


def test_keys_of_other_models_need_no_prices_of_this_one() -> None:
    key = {**KEY, "models": ["m"]}

    assert load(keys=[key], prices=PRICES, ledger=LEDGER).of_model("small").keys == ()


def test_the_currency_is_that_of_the_first_prices() -> None:
    assert load({"prices": {**PRICES, "currency": "EUR"}}).currency == "EUR"


def test_tiers_of_another_model_need_not_fit_the_context() -> None:
    tiers = [*TIERS[:4], {**TIERS[4], "max_tokens": 4000, "model": "small"}]
    settings = load(tiers=tiers)

    check_tiers(settings, 40)
    with pytest.raises(ConfigError, match="max_tokens of 'max'"):
        check_tiers(settings.of_model("small"), 3999)
