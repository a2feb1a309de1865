"""Unknown settings and variables, which are refused with the nearest name."""

from typing import Any

import pytest

from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings, load_settings
from proctor.server.config.unknown_names import describe_unknown, unknown_variables


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"prot": 1}, "prot: Unknown setting 'prot': did you mean 'port'?"),
        (
            {"limits": {"max_runing": 3}},
            "limits.max_runing: Unknown setting 'max_runing': did you mean 'max_running'?",
        ),
        (
            {"tiers": [{"name": "a", "max_tokens": 3, "continuation": 3}]},
            "tiers.0.continuation: Unknown setting 'continuation': did you mean 'continuations'?",
        ),
        (
            {"prices": {"prompt": 1, "thinking": 1, "answer": 1, "curency": "EUR"}},
            "prices.curency: Unknown setting 'curency': did you mean 'currency'?",
        ),
        ({"zzz": 1}, "zzz: Unknown setting 'zzz'"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(
    flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(flags)
    assert message in str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (
            "PROCTOR_PROT",
            "Unknown environment variable 'PROCTOR_PROT': did you mean 'PROCTOR_PORT'?",
        ),
        ("PROCTOR_LIMIT__MAX_RUNNING", "did you mean 'PROCTOR_LIMITS'?"),
        ("PROCTOR_LIMITS__MAX_RUNING", "did you mean 'max_running'?"),
        ("proctor_modle", "did you mean 'PROCTOR_MODEL'?"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    variable: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ConfigError) as refused:
        load_settings({})
    assert message in str(refused.value)


def test_variables_of_others_are_left_alone() -> None:
    others = {
        *("PROCTOR_PORT", "PROCTOR_LIMITS__MAX_RUNNING", "PROCTOR_CONFIG", "PROCTOR_API_KEY"),
        *("PROCTOR_SERVICE_HOST", "PROCTOR_SERVICE_PORT_HTTP", "PROCTOR_PORT_8000_TCP_ADDR"),
        *("PROCTOR_ENGINE_PORT", "PATH", "XPROCTOR_PROT"),
    }
    assert unknown_variables(Settings, dict.fromkeys(others, "1")) == []


def test_a_long_name_is_shortened() -> None:
    assert len(describe_unknown("setting", "x" * 999, ["y"])) < 99
