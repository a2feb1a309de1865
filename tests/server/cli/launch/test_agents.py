"""What agents are given: the same by `--print` as by a launch."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from proctor.server.cli.launch.agents import Target, claude_code, codex, opencode
from proctor.server.cli.main import main
from tests.server.cli.launch.launch_process import install_agent

HEADERS = {"x-session-id": "s-1", "x-session-max-cost": "2.5"}


def target(context_length: int | None = 8192) -> Target:
    return Target("http://127.0.0.1:9", "a/b", context_length, "secret", HEADERS)


def test_claude_code_is_given_the_server_the_model_and_the_session() -> None:
    invocation = claude_code(target(), {})

    variables = invocation.environment
    assert variables["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:9"
    assert variables["ANTHROPIC_AUTH_TOKEN"] == "secret"
    assert variables["ANTHROPIC_CUSTOM_HEADERS"] == "x-session-id: s-1\nx-session-max-cost: 2.5"
    assert variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "8192"
    assert {value for name, value in variables.items() if "MODEL" in name} == {"a/b"}
    assert "ANTHROPIC_API_KEY" in invocation.unset


def test_headers_of_the_user_stay() -> None:
    variables = claude_code(target(), {"ANTHROPIC_CUSTOM_HEADERS": "x-team: 7"}).environment

    assert variables["ANTHROPIC_CUSTOM_HEADERS"].splitlines() == [
        "x-team: 7",
        "x-session-id: s-1",
        "x-session-max-cost: 2.5",
    ]


def test_codex_is_given_a_provider_in_arguments() -> None:
    invocation = codex(target(), {})

    options = invocation.arguments[1::2]
    assert set(invocation.arguments[::2]) == {"-c"}
    given = tomllib.loads("\n".join(options))
    assert (given["model"], given["model_provider"]) == ("a/b", "proctor")
    assert given["model_context_window"] == 8192
    provider = given["model_providers"]["proctor"]
    assert provider["base_url"] == "http://127.0.0.1:9/v1"
    assert provider["wire_api"] == "responses"
    assert provider["http_headers"] == HEADERS
    assert invocation.environment == {provider["env_key"]: "secret"}


def test_opencode_is_given_a_provider_in_its_environment() -> None:
    config = json.loads(opencode(target(), {}).environment["OPENCODE_CONFIG_CONTENT"])

    provider = config["provider"]["proctor"]
    assert config["model"] == config["small_model"] == "proctor/a/b"
    assert provider["options"] == {"baseURL": "http://127.0.0.1:9/v1", "apiKey": "secret"}
    assert provider["models"]["a/b"]["headers"] == {
        "X-Session-Id": "s-1",
        "X-Session-Max-Cost": "2.5",
    }
    assert provider["models"]["a/b"]["limit"] == {"context": 8192, "output": 2048}


@pytest.mark.parametrize("invoke", [claude_code, codex, opencode])
def test_a_context_that_is_not_known_is_left_out(invoke: object) -> None:
    assert callable(invoke)
    known, unknown = (repr(invoke(target(length), {})) for length in (8192, None))

    assert "8192" in known
    assert "8192" not in unknown


@pytest.mark.parametrize("agent", ["claude", "codex", "opencode"])
def test_what_is_printed_runs_the_agent_in_a_shell(
    agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install_agent(tmp_path / "bin", agent)
    (folder / agent).write_text('#!/bin/sh\nprintf "%s\\n" "$@"; env\n')
    monkeypatch.setenv("PROCTOR_PORT", "0")
    monkeypatch.setenv("PROCTOR_API_KEY", "it's secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    options = ["--session", "s-1", "--budget-thinking", "200000", "--budget-usd", "2"]

    status = main(["launch", agent, "--print", *options, "--", "-p", "two words"])

    script = capsys.readouterr().out
    shown = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, check=True)
    assert status == 0
    assert "\n-p\ntwo words\n" in f"\n{shown.stdout}"
    assert "it's secret" in shown.stdout
    for text in ("s-1", "200000"):
        assert text in shown.stdout
    if agent == "claude":
        assert "another" not in shown.stdout


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--budget-thinking", "-1"),
        ("--budget-thinking", "many"),
        ("--budget-usd", "0"),
        ("--budget-usd", "nan"),
        ("--budget-usd", "two"),
        ("--session", "a b"),
        ("--server", "localhost:8000"),
    ],
)
def test_invalid_values_are_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["launch", "claude", f"{option}={value}"])

    assert option in capsys.readouterr().err


def test_an_agent_that_is_not_installed_is_named_with_its_installation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    status = main(["launch", "codex"])

    complaint = capsys.readouterr().err
    assert status == 127
    assert "Codex is not installed" in complaint
    assert "npm install --global @openai/codex" in complaint
