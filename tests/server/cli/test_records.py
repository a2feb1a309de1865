"""`proctor records`."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proctor.server.cli.main import main
from proctor.server.storage.database import connect
from proctor.server.turns.keyring import Secret
from proctor.server.turns.store import SecretStore

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("PROCTOR_LEDGER__URL", url)
    return url


def read(url: str, now: datetime) -> list[Secret]:
    async def found() -> list[Secret]:
        engine = connect(url)
        try:
            return await SecretStore(engine).get_or_create(now)
        finally:
            await engine.dispose()

    return asyncio.run(found())


def test_a_secret_is_rotated(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["records", "rotate"]) == 0
    (first,) = read(ledger, datetime.now(UTC))
    assert main(["records", "rotate", "--keep-days", "2"]) == 0
    output = capsys.readouterr().out

    newest, kept = read(ledger, datetime.now(UTC))
    assert kept.value == first.value
    assert newest.id.hex() in output
    assert newest.value.hex() not in output
    assert "valid for 2 days" in output
    assert read(ledger, datetime.now(UTC) + timedelta(days=3)) == [newest]


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("PROCTOR_LEDGER__URL", "", "ledger.url"),
        ("PROCTOR_AUTH__RECORD_SECRETS", f'["{"a" * 32}"]', "auth.record_secrets"),
        ("PROCTOR_AUTH__RECORD_SECRETS", '["short"]', "auth.record_secrets"),
    ],
)
def test_secrets_that_cannot_be_rotated_are_named(
    name: str,
    value: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)

    assert main(["records", "rotate"]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "short" not in error


def test_an_unreachable_database_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCTOR_LEDGER__URL", "postgresql://proctor@127.0.0.1:1/none")

    assert main(["records", "rotate"]) == 1
    assert "The ledger cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["-1", "x", "1.5", "99999"])
def test_an_invalid_number_of_days_is_refused(
    days: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["records", "rotate", "--keep-days", days])
    assert "from 0 to 3650" in capsys.readouterr().err
