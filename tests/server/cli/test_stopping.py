"""A server that is stopped by one or two signals: its responses, and their rows."""

import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from tests.server.harness import CHAT, body, listening_socket, parse_events
from tests.server.serve_process import read_until, serve_process, wait_until_ready
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

INT, TERM = signal.SIGINT, signal.SIGTERM
PAIRS = [(INT, INT), (TERM, INT), (INT, TERM), (TERM, TERM)]
HELD_UP = "FakeEngine(before_token=lambda job, at: asyncio.sleep({} * (at == 3)))"
"""An engine that blocks after three tokens."""

TALKATIVE = f"""FakeEngine(
    Script(("x" * 99_999,), ""),
    before_token=lambda job, at: asyncio.sleep(
        {PATIENCE} if at == 40_000 and print("all is given", flush=True) is None else 0
    ),
    context_length=10**6,
)"""
"""An engine that generates more than the buffers of a connection hold."""

LOADING = "([*iter(lambda: SHUTTING_DOWN.is_set() or time.sleep(0.01), True)], FakeEngine())[1]"
"""An engine that loads until the server shuts down."""

WARMING_UP = f"""type("WarmingUp", (FakeEngine,), {{
    "warm_up": lambda self: print("warming up", flush=True) or asyncio.sleep({PATIENCE}),
    "aclose": lambda self: asyncio.sleep(0.1),
}})()"""
"""An engine that is warmed up until the server shuts down."""


@contextmanager
def waiting_for_ever(
    file: Path, engine: str = HELD_UP.format(PATIENCE), **settings: object
) -> Iterator["subprocess.Popen[str]"]:
    """Run a server whose grace period is longer than any test."""
    known = {
        "LIMITS__SHUTDOWN_GRACE_SECONDS": 2 * PATIENCE,
        "LEDGER__URL": f"sqlite:///{file}",
        "DEFAULT_TIER": "custom",
        **settings,
    }
    with serve_process(engine, known) as process:
        yield process


def until_refused(url: str) -> None:
    """Wait until connections are refused."""
    where = urlsplit(url)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as connection:
            if connection.connect_ex((where.hostname, where.port)):
                return
        time.sleep(0.01)
    raise AssertionError(f"{url} is still listened at")


def stop(process: "subprocess.Popen[str]", url: str, by: Sequence[signal.Signals]) -> None:
    """Send the signals in order; the others after the first has closed the listening socket."""
    process.send_signal(by[0])
    until_refused(url)
    for again in by[1:]:
        process.send_signal(again)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return the exit status of the server, and its error output."""
    _, complaints = process.communicate(timeout=PATIENCE)
    return process.returncode, complaints


def statuses(file: Path) -> list[int]:
    """Return the statuses of the ledger's rows."""
    with sqlite3.connect(file) as database:
        return [status for (status,) in database.execute("SELECT status FROM requests")]


def assert_cut_short(text: str) -> None:
    """Check that a stream has begun, and ends with the error about the shutdown."""
    *earlier, last = parse_events(text)
    assert any(event.name == "reasoning" for event in earlier)
    assert last.name == "error"
    assert "shutting down" in last.data["error"]["message"]


@pytest.mark.parametrize("by", [*PAIRS, (INT, INT, INT)])
def test_a_second_signal_ends_running_requests(
    by: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    file = tmp_path / "ledger.db"
    with waiting_for_ever(file) as process:
        url = wait_until_ready(process)
        with httpx.stream("POST", url + CHAT, json=body(stream=True), timeout=PATIENCE) as response:
            stop(process, url, by)
            assert_cut_short(response.read().decode())
        assert ended(process) == (0, "")

    assert statuses(file) == [503]


def test_the_end_of_the_grace_period_ends_running_requests(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    with waiting_for_ever(file, LIMITS__SHUTDOWN_GRACE_SECONDS=1) as process:
        url = wait_until_ready(process)
        with httpx.stream("POST", url + CHAT, json=body(stream=True), timeout=PATIENCE) as response:
            process.send_signal(TERM)
            assert_cut_short(response.read().decode())
        assert ended(process) == (0, "")

    assert statuses(file) == [503]


def test_a_second_signal_works_with_an_admin_port(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    with listening_socket() as bound:
        port = bound.getsockname()[1]
    with waiting_for_ever(file, AUTH__ADMIN_PORT=port) as process:
        url = wait_until_ready(process)
        with httpx.stream("POST", url + CHAT, json=body(stream=True), timeout=PATIENCE) as response:
            stop(process, url, (INT, INT))
            assert_cut_short(response.read().decode())
        assert ended(process) == (0, "")

    assert statuses(file) == [503]


def test_the_server_does_not_wait_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    with waiting_for_ever(file, TALKATIVE) as process, socket.socket() as client:
        url = wait_until_ready(process)
        where = urlsplit(url)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((where.hostname, where.port))
        client.sendall(_request(body(stream=True, thinking={"on_loop": "off"})))
        read_until(process, "all is given")
        stop(process, url, (INT, INT))
        assert ended(process) == (0, "")

    assert statuses(file) == [503]


@pytest.mark.parametrize("by", [(INT,), (TERM,), *PAIRS])
def test_the_server_does_not_wait_for_a_loading_engine(
    by: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    with waiting_for_ever(tmp_path / "ledger.db", LOADING) as process:
        url = read_until(process, r"http://127\.0\.0\.1:\d+")
        stop(process, url, by)
        assert ended(process) == (0, "")


@pytest.mark.parametrize("by", [(INT,), (TERM,)])
def test_the_server_does_not_wait_for_the_warm_up(
    by: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    with waiting_for_ever(tmp_path / "ledger.db", WARMING_UP) as process:
        # The two lines come in either order.
        lines = {read_until(process, r"http://127\.0\.0\.1:\d+|warming up") for _ in range(2)}
        (url,) = lines - {"warming up"}
        stop(process, url, by)
        assert ended(process) == (0, "")


@pytest.mark.parametrize("by", [INT, TERM])
def test_a_server_that_is_stopped_before_it_listens_ends_quietly(
    by: signal.Signals, tmp_path: Path
) -> None:
    engine = f"(os.kill(os.getpid(), {int(by)}), {LOADING})[1]"
    with waiting_for_ever(tmp_path / "ledger.db", engine) as process:
        assert ended(process) == (0, "")


@pytest.mark.parametrize("by", [INT, TERM])
def test_the_command_is_quiet_when_it_is_stopped_while_it_is_imported(by: signal.Signals) -> None:
    code = (
        "import os, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        f"        name == 'proctor.server.app' and os.kill(os.getpid(), {int(by)})\n"
        "from proctor.server.cli.entry import main\n"
        "sys.meta_path.insert(0, Stop())\n"
        "main()\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )
    assert process.returncode in (130, -by)
    assert process.stderr == ""


def _request(fields: dict[str, Any]) -> bytes:
    content = orjson.dumps(fields)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content
