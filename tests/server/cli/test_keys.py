"""`proctor keys`, and servers that require keys."""

import re
import socket
import tomllib
from pathlib import Path

import httpx
import pytest

from proctor.server.cli.main import main
from proctor.server.config.settings import Settings
from tests.server.auth.keys import bearer
from tests.server.harness import CHAT, body
from tests.server.serve_process import read_until, serve_process
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

TOKEN = re.compile(r"sk-proctor-[0-9a-f]{8}-[0-9a-f]{48}")


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("PROCTOR_LEDGER__URL", url)
    return url


def keys(*arguments: str) -> int:
    return main(["keys", *arguments])


def test_a_key_is_created_listed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        keys("create", "team", "--requests-per-minute", "3", "--model", "a", "--tier", "low") == 0
    )
    token = capsys.readouterr().out.strip()
    assert TOKEN.fullmatch(token)

    assert keys("list") == 0
    output = capsys.readouterr().out
    assert "requests_per_minute 3" in output
    assert "tier low" in output
    assert token not in output
    assert keys("revoke", "team") == 0
    assert keys("list") == 0
    assert "revoked" in capsys.readouterr().out


def test_a_key_can_be_printed_for_the_settings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert keys("create", "team", "--admin", "--max-thinking-tokens", "9", "--print") == 0
    output = capsys.readouterr()
    (token,) = TOKEN.findall(output.err)
    settings = Settings(**tomllib.loads(output.out))

    (listed,) = settings.keys
    assert (listed.name, listed.scope, listed.max_thinking_tokens) == ("team", "admin", 9)
    assert token not in output.out
    (tmp_path / "proctor.toml").write_text(output.out)
    assert keys("create", "team", "--config", str(tmp_path / "proctor.toml")) == 1
    assert "already exists in the settings" in capsys.readouterr().err
    assert keys("list", "--config", str(tmp_path / "proctor.toml")) == 0
    assert "in the settings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (("create", "team", "--tier", "huge"), 1, "tier: Unknown tier 'huge'"),
        (("create", "team", "--per-day", "5"), 1, "[prices] or [compute]"),
        (("create", "team", "--requests-per-minute", "0"), 2, "requests_per_minute"),
        (("create", "bad name"), 2, "name"),
        (("revoke", "nobody"), 1, "No active key named 'nobody'"),
    ],
)
def test_invalid_arguments_are_refused(
    arguments: tuple[str, ...], status: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = () if "huge" in arguments else ("--config", "/dev/null")
    assert keys(*arguments, *config) == status
    assert named in capsys.readouterr().err


def test_names_of_keys_are_unique(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys("create", "team") == 0
    assert keys("revoke", "team") == 0
    assert keys("create", "team") == 1
    assert "A key named 'team' already exists" in capsys.readouterr().err


def test_keys_need_a_database(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCTOR_LEDGER__URL", "")

    assert keys("list") == 2
    assert "ledger.url" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_public_address_requires_keys(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", host]) == 2
    assert "proctor keys create" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "required"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "127.0.0.2"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0", "auth": {"required": False}}, False),
        ({"auth": {"required": True}}, True),
        ({"keys": [{"name": "a", "hash": f"{'0' * 8}:{'0' * 64}"}]}, True),
    ],
)
def test_which_settings_require_keys(fields: dict[str, object], required: bool) -> None:
    assert Settings(**fields).asks_for_keys is required  # type: ignore[arg-type]


def test_a_server_with_keys_and_an_admin_port(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys("create", "team") == 0
    token = capsys.readouterr().out.strip()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("PROCTOR_AUTH__REQUIRED", "true")
    monkeypatch.setenv("PROCTOR_AUTH__ADMIN_PORT", str(port))
    with serve_process("FakeEngine()") as process:
        url = read_until(process, r"http://127\.0\.0\.1:\d+")
        read_until(process, f"curl {url}{CHAT}")
        refused = httpx.post(url + CHAT, json=body())
        answer = httpx.post(url + CHAT, json=body(), headers=bearer(token))
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics")
        elsewhere = httpx.get(f"{url}/metrics", headers=bearer(token))
        process.terminate()
        process.communicate(timeout=PATIENCE)

    assert (refused.status_code, answer.status_code) == (401, 200)
    assert 'proctor_rejected_total{reason="key"} 1.0' in metrics.text
    assert elsewhere.status_code in (403, 404)
    assert process.returncode == 0
