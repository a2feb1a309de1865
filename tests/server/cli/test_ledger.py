"""`proctor ledger …`, and the router's calibration from a ledger."""

import asyncio
import csv
import io
import json
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from proctor.server.accounting.ledger.records import LedgerRecord
from proctor.server.accounting.ledger.store import Store
from proctor.server.cli.main import main
from proctor.server.config.settings import load_settings
from proctor.server.storage.database import connect
from tests.server.accounting.ledger.records import NOON, make_cost, make_record

DAYS = [
    make_record(1, tier="low", cost=make_cost("0.1"), score=1.0),
    make_record(2, tier="max", cost=make_cost("0.0000005"), thinking_tokens=300),
    make_record(3, tier="low", cost=make_cost("0.2"), time=NOON + timedelta(days=1)),
    make_record(4, tier="low", time=NOON + timedelta(days=2)),
]


def fill(url: str, rows: list[LedgerRecord]) -> None:
    async def write() -> None:
        store = Store(connect(url))
        await store.migrate()
        await store.write(rows)
        await store.aclose()

    asyncio.run(write())


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["ledger", "report", *arguments]) == 0
    return capsys.readouterr().out


def test_a_report_in_json(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(url, DAYS)

    found = json.loads(told(capsys, "--url", url, "--format", "json", "--by", "tier"))

    groups = [(line["tier"], line["requests"], line["cost"]) for line in found]
    assert groups == [("low", 1, None), ("low", 2, "0.3"), ("max", 1, "0.0000005")]
    assert found[1]["cost_per_correct"] == "0.1"
    assert found[1]["saved_tokens"] == 2 * 300 - 60


def test_a_report_of_some_days_in_csv(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(url, DAYS)
    days = ("--since", "2026-02-01", "--until", "2026-02-01")

    found = [*csv.DictReader(io.StringIO(told(capsys, "--url", url, "--format", "csv", *days)))]

    assert [(line["day"], line["tier"], line["cost"]) for line in found] == [
        ("2026-02-01", "low", "0.2")
    ]
    assert found[0]["cost_per_correct"] == ""


def test_a_report_as_a_table(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(url, DAYS)

    lines = told(capsys, "--url", url, "--by", "model,tier").splitlines()

    assert lines[0].split()[:4] == ["model", "tier", "requests", "answered"]
    assert lines[1].split()[:5] == ["fake", "low", "1", "1", "10"]
    assert "0.0000005" in lines[3]
    assert "-" in lines[1].split()


@pytest.mark.parametrize("tier", ["high", "custom", "retired"])
def test_savings_are_told_against_any_tier_of_the_settings_or_the_ledger(
    tier: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url, [*DAYS, make_record(5, tier="retired", thinking_tokens=200)])
    found = json.loads(told(capsys, "--url", url, "--format", "json", "--against", tier))
    assert {line["saved_tokens"] is None for line in found} == {tier != "retired"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--against", "bogus"), "--against: Unknown tier 'bogus'; tiers are none, low, medium"),
        (
            ("--since", "2026-02-02", "--until", "2026-02-01"),
            "--until: 2026-02-01 is before --since 2026-02-02",
        ),
    ],
)
def test_a_report_that_cannot_be_meant_is_refused(
    options: tuple[str, ...], named: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url, DAYS)
    assert main(["ledger", "report", "--url", url, *options]) == 2
    told = capsys.readouterr()
    assert named in told.err
    assert not told.out


def test_the_ledger_of_the_settings_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROCTOR_LEDGER__URL")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)

    assert main(["ledger", "report"]) == 1
    assert f"no ledger at {tmp_path / 'proctor' / 'ledger.db'}" in capsys.readouterr().err
    assert main(["ledger", "migrate"]) == 0
    assert told(capsys, "--format", "json") == "[]\n"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'service'}:{tmp_path / 'other'}")
    url = load_settings({"model": "fake"}).ledger.url.get_secret_value()
    assert url == f"sqlite:///{tmp_path / 'service' / 'ledger.db'}"
    monkeypatch.setenv("PROCTOR_LEDGER__URL", "")
    assert main(["ledger", "report"]) == 2
    assert "ledger.url: Must be set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["report", "--url", "mysql://host/x"], 2, "Unsupported database 'mysql'"),
        (["report", "--url", "postgresql://127.0.0.1:1/x"], 1, "cannot be read"),
        (["migrate", "--url", "postgresql://127.0.0.1:1/x"], 1, "cannot be reached"),
        (["migrate", "--url", "sqlite:////nowhere/at/all.db"], 2, "/nowhere/at: No such file"),
    ],
)
def test_an_unusable_ledger_is_reported(
    arguments: list[str], status: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", *arguments]) == status

    complaint = capsys.readouterr().err
    assert named in complaint
    assert complaint.count("\n") == 1


def test_serve_refuses_a_file_that_is_not_a_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "no.db"
    file.write_bytes(b"this is no database at all, by no means" * 100)
    monkeypatch.setenv("PROCTOR_LEDGER__URL", f"sqlite:///{file}")
    # A starting server sets both, and they must not outlast the test.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")

    assert main(["serve", "--model", "fake", "--port", "0"]) == 2

    assert "ledger.url: file is not a database" in capsys.readouterr().err


def test_the_router_is_calibrated_from_a_ledger(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    natural = [make_record(n, tier="high", thinking_tokens=n) for n in range(1, 101)]
    others = [
        make_record("a", tier="custom", thinking_tokens=9999),
        make_record("b", tier="high", thinking_tokens=9999, choices=2),
    ]
    fill(url, [*natural, *others])
    lines = [
        {"tier": "high", "tokens": n, "end_reason": "natural", "max_tokens": 512}
        for n in range(1, 101)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))

    assert main(["router", "calibrate", "--ledger", url]) == 0
    from_ledger = capsys.readouterr().out
    assert main(["router", "calibrate", "--ledger", str(file)]) == 0
    from_file = capsys.readouterr().out

    assert from_ledger == from_file
    assert "max_tokens = 90" in from_ledger
    assert main(["router", "calibrate", "--ledger", "sqlite:////nowhere/at.db"]) == 2
    assert "no ledger at /nowhere/at.db" in capsys.readouterr().err
