"""Liveness of a process, as seen by other processes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proctor.server.accounting.ledger import process
from proctor.server.accounting.ledger.process import Process, start_time_of, this_process

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_this_process_is_alive() -> None:
    this = this_process()

    assert this.is_local
    assert not this.has_ended
    assert this == this_process()


def test_a_stopped_process_is_alive_until_it_is_killed() -> None:
    child = subprocess.Popen(["/bin/sleep", "600"])
    try:
        seen = Process(this_process().host, child.pid, start_time_of(child.pid) or 0)
        child.send_signal(signal.SIGSTOP)
        ended_while_stopped = seen.has_ended
        child.kill()
        # A zombie counts as ended: it does not run any more.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert (ended_while_stopped, seen.has_ended) == (False, True)
    finally:
        child.kill()
        child.wait()
    assert seen.has_ended
    assert start_time_of(child.pid) is None


def test_a_reused_pid_is_another_process() -> None:
    this = this_process()

    assert replace(this, birth=this.birth - 1).has_ended


def test_a_process_on_another_host_is_never_known_to_have_ended() -> None:
    elsewhere = Process("another boot pid:[1]", 1, 1)

    assert not elsewhere.is_local
    assert not elsewhere.has_ended


def test_a_host_without_a_boot_id_is_never_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BOOT_ID_FILE", Path("/nowhere"))
    monkeypatch.setattr(process, "this_host", process.this_host.__wrapped__)

    assert process.this_host() == ""
    assert not this_process().is_local


def test_process_names_may_contain_any_characters(tmp_path: Path) -> None:
    program = tmp_path / ") Z 1 (x"
    program.symlink_to(sys.executable)
    child = subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert (start_time_of(child.pid) or 0) >= this_process().birth
    finally:
        child.communicate(b"\n")
