import pickle
from decimal import Decimal
from pathlib import Path

import pytest

from proctor.server.config import settings as module
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "DEMO", tmp_path / "demo")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_defaults() -> None:
    settings = load_settings({})

    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.model_path.endswith("demo/model")
    assert settings.model_name == "proctor-demo"


def test_flags_override_the_environment_and_it_overrides_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "proctor.toml", 'host = "file"\nport = 1\nmodel = "file"')
    monkeypatch.setenv("PROCTOR_PORT", "2")
    monkeypatch.setenv("PROCTOR_MODEL", "environment")

    settings = load_settings({"model": "flag"})

    assert (settings.host, settings.port, settings.model) == ("file", 2, "flag")


def test_tables_are_merged_key_by_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(
        tmp_path / "proctor.toml",
        "[engine]\ndtype = 'auto'\nseed = 1\n[budget]\nmin_tokens = 3\nmax_tokens = 9\n",
    )
    monkeypatch.setenv("PROCTOR_BUDGET__MAX_TOKENS", "30")
    monkeypatch.setenv("PROCTOR_ENGINE", '{"max_model_len": 99}')

    settings = load_settings({"engine": {"seed": 2}})

    assert settings.engine == {"dtype": "auto", "seed": 2, "max_model_len": 99}
    assert (settings.budget.min_tokens, settings.budget.max_tokens) == (3, 30)


def test_the_path_of_the_file_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "proctor.toml", "port = 1")
    named = write(tmp_path / "named.toml", "port = 2")
    other = write(tmp_path / "other.toml", "port = 3")
    monkeypatch.setenv("PROCTOR_CONFIG", str(named))

    assert load_settings({}).port == 2
    assert load_settings({}, other).port == 3


def test_the_demo_model_brings_its_own_defaults(tmp_path: Path) -> None:
    write(
        tmp_path / "demo" / "proctor.toml",
        "served_model_name = 'demo'\n"
        "[budget]\ncontinuation_text = ['A', 'B']\nwrap_up_text = 'E'\n",
    )
    write(tmp_path / "proctor.toml", "[budget]\nwrap_up_text = 'mine'\n")

    demo, other = load_settings({}), load_settings({"model": "other"})

    assert demo.model_name == "demo"
    assert demo.budget.to_budget().continuation_texts == ("A", "B")
    assert demo.budget.wrap_up_text == "mine"
    assert other.model_name == "other"
    assert other.budget.to_budget().continuation_texts == ("Wait",)


ELSEWHERE = "[engine]\nkind = 'completions'\nbase_url = 'http://elsewhere/v1'"


TIER = "default_tier = 'custom'\n[[tiers]]\nname = 'x'\nmax_tokens = 30\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = 70000", "port"),
        ("port = 'x'", "port"),
        ("prot = 1", "prot"),
        ("[budget]\nmax_tokens = -2", "budget.max_tokens"),
        ("[budget]\nmin_tokens = 5\nmax_tokens = 2", "min_thinking_tokens"),
        ("[budget]\ncontinuations = 9", "continuations"),
        ("[budget.parallel]\nchains = 65", "budget.parallel.chains"),
        ("[budget]\nmax_tokens = 3\nparallel = {chains = 4}", "parallel.chains"),
        (f"{TIER}min_tokens = 10\nparallel = {{chains = 4}}", "parallel.chains"),
        (f"{TIER}temperature = 0\nparallel = {{chains = 4}}", "temperature"),
        (f"{TIER}parallel = {{chains = 17}}", "limits.max_choices"),
        (f"{TIER}parallel = {{chains = 2, method = 'best_by_key'}}", "parallel.method"),
        ("[answer_scorer]\nurl = 'http://x'\nentry_point = 'y'", "answer_scorer"),
        ("[answer_scorer]\nurl = 'file:///x'", "answer_scorer.url"),
        ("[limits]\nmax_choices = 0", "limits.max_choices"),
        ("[limits]\nspeed = 0", "limits.speed"),
        ("[answer_reserve]\nshare = 2", "answer_reserve.share"),
        ("reasoning_format = 'x'", "reasoning_format"),
        ("thinking_start = '<t>'", "thinking_end"),
        ("engine = 3", "engine"),
        ("port = ", "proctor.toml"),
        ("workers = 0", "workers"),
        ("workers = 2", "workers: Must be 1 with the embedded engine"),
        (
            f"workers = 2\nmodel = 'm'\n{ELSEWHERE}\n[compute]\nper_hour = 1",
            "workers: .* Use .prices. instead",
        ),
        (
            f"workers = 2\nmodel = 'm'\n{ELSEWHERE}\n[limits]\nmax_running = 31",
            "workers: limits.max_running .* must be at least 32",
        ),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, text: str, named: str) -> None:
    write(tmp_path / "proctor.toml", text)

    with pytest.raises(ConfigError, match=named):
        load_settings({})


def test_settings_can_be_sent_to_another_process(tmp_path: Path) -> None:
    text = f"workers = 2\nmodel = 'm'\n{ELSEWHERE}\napi_key = 'secret'\n"
    settings = load_settings({"port": "3"}, write(tmp_path / "proctor.toml", text))

    received = pickle.loads(pickle.dumps(settings))

    assert received == settings
    assert received.engine == settings.engine
    assert received.model_fields_set == settings.model_fields_set


def test_an_environment_variable_with_invalid_json_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROCTOR_ENGINE", "{")

    with pytest.raises(ConfigError, match="engine"):
        load_settings({})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_settings({}, tmp_path / "nowhere.toml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_deprecated_names_are_accepted_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "proctor.toml"
    file.write_text('[machine]\nper_hour = 2.5\n[router]\nclassifier = "linear"\n')

    settings = load_settings({}, file)

    assert settings.compute is not None
    assert settings.compute.per_hour == Decimal("2.5")
    assert settings.router.classifier == "ensemble"
    assert "[machine] is deprecated; use [compute]" in caplog.text
    assert "'linear' is deprecated; use 'ensemble'" in caplog.text


def test_deprecated_names_are_accepted_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCTOR_MACHINE__PER_HOUR", "2.5")

    settings = load_settings({})

    assert settings.compute is not None
