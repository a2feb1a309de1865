"""`proctor sessions`, and the options of `proctor keys` for sessions."""

import asyncio
import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from proctor.server.accounting.ledger.store import Store
from proctor.server.accounting.reservation_store import ReservationStore, SessionClaim
from proctor.server.auth.rate_limits import WorstCase
from proctor.server.cli.main import main
from proctor.server.config.sessions import KeySession, SessionLimits
from proctor.server.config.settings import Settings
from proctor.server.sessions.limits import Session
from proctor.server.storage.database import connect
from tests.server.accounting.ledger.records import NOON, make_cost, make_record
from tests.server.auth.keys import make_key


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger with two sessions, of which one has limits."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("PROCTOR_LEDGER__URL", url)

    async def fill() -> None:
        store = Store(connect(url))
        await store.migrate()
        limits = SessionLimits(max_thinking_tokens=100, max_cost=Decimal(2), max_seconds=60)
        claim = SessionClaim(Session("team", "agent", True, limits), "low")
        key, _ = make_key("team")
        running = WorstCase(50, 10**9, 20)
        await ReservationStore(store.engine).reserve("a", key, running, NOON, "gateway", claim)
        await store.write(
            [
                make_record("b", key="team", session="agent", cost=make_cost("0.5")),
                make_record("c", session="other"),
                make_record("d"),
            ]
        )
        await store.aclose()

    asyncio.run(fill())
    return url


@pytest.mark.usefixtures("url")
def test_sessions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "list"]) == 0
    table = capsys.readouterr().out
    assert main(["sessions", "list", "--key", "team", "--format", "json"]) == 0
    (card,) = json.loads(capsys.readouterr().out)

    assert "agent" in table
    assert "other" in table
    assert card["used"] == {"requests": 1, "thinking_tokens": 30, "tokens": 52, "cost": 0.5}
    assert card["reserved"] == {"requests": 1, "thinking_tokens": 20, "tokens": 50, "cost": 1.0}
    assert card["remaining"] == {
        "thinking_tokens": 50,
        "tokens": None,
        "cost": 0.5,
        "requests": None,
        "seconds": 0.0,
    }


@pytest.mark.usefixtures("url")
def test_a_session_is_shown_by_tier_with_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "show", "agent", "--key", "team"]) == 0
    output = capsys.readouterr().out
    assert main(["sessions", "show", "other", "--format", "json"]) == 0
    card = json.loads(capsys.readouterr().out)

    assert "low" in output
    assert "thinking tokens: 50 of 100 left, 20 reserved" in output
    assert "cost: 0.5 of 2 left, 1 reserved" in output
    assert "seconds: 0 of 60 left" in output
    assert (card["key"], card["limits"]["max_cost"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("show", "agent"), 1, "No session 'agent' without a key."),
        (("show", "x", "--key", "team"), 1, "No session 'x' of the key 'team'."),
        (("list", "--url", "sqlite:////nowhere/ledger.db"), 1, "There is no ledger at"),
        (("list", "--url", "oracle://x"), 2, "Unsupported database"),
    ],
)
@pytest.mark.usefixtures("url")
def test_what_cannot_be_shown_is_named(
    arguments: tuple[str, ...], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sessions", *arguments]) == status
    assert message in capsys.readouterr().err


def test_without_a_ledger_there_are_no_sessions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCTOR_LEDGER__URL", "")

    assert main(["sessions", "list"]) == 2
    assert "sessions are stored in the ledger" in capsys.readouterr().err


def test_a_report_is_grouped_by_session(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "report", "--by", "session", "--format", "json", "--url", url]) == 0
    lines = json.loads(capsys.readouterr().out)

    assert [(line["session"], line["requests"]) for line in lines] == [
        ("", 1),
        ("agent", 1),
        ("other", 1),
    ]


@pytest.mark.usefixtures("url")
def test_a_key_gets_limits_for_its_sessions(capsys: pytest.CaptureFixture[str]) -> None:
    limits = ("--session-max-thinking-tokens", "9", "--session-max-seconds", "60")
    assert main(["keys", "create", "one", *limits, "--single-session", "--print"]) == 0
    printed = Settings(
        **tomllib.loads(capsys.readouterr().out), ledger={"url": "sqlite:///ledger.db"}
    )
    assert main(["keys", "create", "one", *limits, "--single-session"]) == 0
    capsys.readouterr()
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out

    (key,) = printed.keys
    assert key.session == KeySession(max_thinking_tokens=9, max_seconds=60, single=True)
    assert "session.max_thinking_tokens 9" in listed
    assert "session.single True" in listed


@pytest.mark.usefixtures("url")
def test_a_limit_of_cost_requires_prices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "one", "--session-max-cost", "2"]) == 1
    assert "session.max_cost: A limit of cost requires [prices]" in capsys.readouterr().err


@pytest.mark.parametrize("table", ["keys", "tiers"])
@pytest.mark.parametrize(
    ("limits", "ledger", "message"),
    [
        ({"max_requests": 1}, "", "require a ledger"),
        ({"max_cost": 1}, "sqlite:///ledger.db", r"require \[prices\] or \[compute\]"),
    ],
)
def test_settings_with_limits_that_cannot_be_kept_are_refused(
    table: str, limits: dict[str, int], ledger: str, message: str
) -> None:
    entry: dict[str, Any] = {"name": "one", "session": limits}
    entry |= {"hash": f"{8 * 'a'}:{64 * 'b'}"} if table == "keys" else {"max_tokens": 5}
    named = dict.fromkeys(("none", "low", "medium", "high"), "one")
    others = {"efforts": named | dict.fromkeys(("minimal", "xhigh", "max"), "one")}
    fields: dict[str, Any] = {table: [entry], "ledger": {"url": ledger}}
    if table == "tiers":
        fields |= {**others, "router": {"levels": named}}
    with pytest.raises(ValueError, match=f"The session limits of 'one' {message}"):
        Settings(**fields)
