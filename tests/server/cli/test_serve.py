import signal
from pathlib import Path

import httpx
import pytest

from proctor.server.cli.main import main
from tests.server.harness import CHAT, body
from tests.server.serve_process import read_until, serve_process, wait_until_ready
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_at_a_signal(by: signal.Signals) -> None:
    with serve_process("FakeEngine()") as process:
        url = read_until(process, r"http://127\.0\.0\.1:\d+")
        read_until(process, f"curl {url}{CHAT}")
        assert httpx.post(url + CHAT, json=body()).status_code == 200
        process.send_signal(by)
        _, complaints = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert complaints == ""


def test_a_running_stream_is_finished_before_the_end() -> None:
    engine = "FakeEngine(before_token=lambda job, at: __import__('asyncio').sleep(0.02))"
    with serve_process(engine) as process:
        url = wait_until_ready(process)
        with httpx.stream("POST", url + CHAT, json=body(stream=True)) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert "data: [DONE]" in list(lines)
        process.wait(timeout=PATIENCE)

    assert process.returncode == 0


def test_a_model_that_fails_to_load_ends_the_command() -> None:
    with serve_process("(_ for _ in ()).throw(ValueError('no such weights'))") as process:
        _, complaints = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert "no such weights" in complaints


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "x"], "port"),
        (["--port", "-1"], "port"),
        (["--thinking-start", "<t>"], "thinking_end"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--model", "a", "--alias", "b", "--alias", "a"], "aliases"),
    ],
)
def test_an_invalid_setting_ends_the_command_and_is_named(
    arguments: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)

    status = main(["serve", *arguments])

    complaint = capsys.readouterr().err
    assert status == 2
    assert complaint.startswith("proctor: ")
    assert named in complaint
    assert "Traceback" not in complaint


@pytest.mark.parametrize("argument", ["dtype", "=x"])
def test_an_invalid_engine_argument_is_refused(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--engine", argument])

    assert "KEY=VALUE" in capsys.readouterr().err
