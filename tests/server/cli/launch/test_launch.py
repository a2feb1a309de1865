"""`proctor launch` with a stand-in agent: finds or starts a server, and reports the session."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.cli.launch.launch_process import install_agent, launch, launching
from tests.server.serve_process import read_until, serve_process, wait_until_ready
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return install_agent(tmp_path / "bin", "claude")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def server(state: Path) -> Iterator[str]:
    """The URL of a server that runs."""
    settings = {
        "LEDGER__URL": f"sqlite:///{state / 'ledger.db'}",
        "PRICES": '{"prompt": 1, "thinking": 5, "answer": 10}',
    }
    with serve_process("FakeEngine()", settings) as process:
        yield wait_until_ready(process)


def test_the_agent_is_run_on_a_server_that_runs(server: str, programs: Path, state: Path) -> None:
    launched = launch(
        *("claude", "--server", f"{server}/", "--session", "s-1", "--", "-p", "two words"),
        programs=programs,
        state=state,
        AGENT_STATUS="7",
    )

    assert launched.status == 7
    assert launched.found["arguments"] == ["-p", "two words"]
    assert launched.found["status"] == 200
    assert launched.found["environment"]["ANTHROPIC_BASE_URL"] == server
    assert launched.found["environment"]["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "4096"
    assert "fake has a context of 4,096 tokens" in launched.complaints
    assert httpx.get(f"{server}/health").status_code == 200


def test_the_session_has_limits_and_is_reported(server: str, programs: Path, state: Path) -> None:
    limits = ("--session", "s-1", "--budget-thinking", "15", "--budget-usd", "2")

    launched = launch("claude", "--server", server, *limits, programs=programs, state=state)

    headline, columns, row = launched.complaints.splitlines()[-3:]
    assert headline.startswith("proctor: Session s-1: 2 requests, 15 of 15 thinking tokens, 0.00")
    assert headline.endswith(" of 2 USD")
    assert columns.split()[:2] == ["tier", "requests"]
    assert row.split()[:2] == ["low", "2"]


def test_a_session_can_be_continued(server: str, programs: Path, state: Path) -> None:
    options = ("claude", "--server", server, "--session", "s-1")
    launch(*options, "--budget-thinking", "30", programs=programs, state=state)

    launched = launch(*options, programs=programs, state=state)

    assert "4 requests, 30 of 30 thinking tokens" in launched.complaints


def test_a_server_is_started_at_the_configured_address_and_stopped(
    programs: Path, state: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    launched = launch(
        "claude",
        programs=programs,
        state=state,
        PROCTOR_PORT=f"{port}",
        PROCTOR_LEDGER__URL=f"sqlite:///{state / 'ledger.db'}",
    )

    log = state / f"launch-{port}.log"
    assert launched.status == 0
    assert launched.found["status"] == 200
    assert launched.found["environment"]["ANTHROPIC_BASE_URL"] == f"http://127.0.0.1:{port}"
    assert str(log) in launched.complaints
    assert "2 requests" in launched.complaints
    assert "Listening on" in log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")


def test_a_server_that_cannot_start_ends_the_command_with_its_log(
    programs: Path, state: Path
) -> None:
    with launching(
        "claude",
        programs=programs,
        state=state,
        engine="(_ for _ in ()).throw(ValueError('no such weights'))",
        PROCTOR_PORT="0",
    ) as process:
        out, complaints = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert out == ""
    assert "failed to load" in complaints


def test_a_server_that_does_not_answer_is_named(programs: Path, state: Path) -> None:
    launched = launch("claude", "--server", "http://127.0.0.1:9", programs=programs, state=state)

    assert launched.status == 1
    assert launched.complaints == "proctor: No server answers at http://127.0.0.1:9.\n"


def test_ctrl_c_is_for_the_agent(server: str, programs: Path, state: Path) -> None:
    with launching(
        "claude", "--server", server, programs=programs, state=state, AGENT_WAITS="1"
    ) as process:
        read_until(process, "waiting")
        os.killpg(process.pid, signal.SIGINT)
        process.wait(PATIENCE)

    assert process.returncode == 42


def test_a_signal_that_ends_the_agent_is_passed_on(
    server: str, programs: Path, state: Path
) -> None:
    with launching(
        "claude", "--server", server, programs=programs, state=state, AGENT_WAITS="1"
    ) as process:
        read_until(process, "waiting")
        process.terminate()
        process.wait(PATIENCE)

    assert process.returncode == 128 + signal.SIGTERM
